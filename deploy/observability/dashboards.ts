/*
 * node deploy/observability/dashboards.ts NAME
 *
 * Prints a Grafana dashboard: service, channel, gateway or runtime. `make dashboards` writes them to dashboards/.
 */
import process from 'node:process';

type Unit = 'short' | 's' | 'percentunit' | 'reqps' | 'ops' | 'bytes' | 'none';

interface Panel {
  readonly title: string;
  /** What a reader may ask: shown at the title. */
  readonly description?: string;
  /** Defaults to a graph over time. */
  readonly type?: 'timeseries' | 'stat' | 'table';
  readonly unit: Unit;
  /** By what each line is called, in Grafana's words: `{{route}}`. */
  readonly queries: Readonly<Record<string, string>>;
}

interface Dashboard {
  readonly title: string;
  readonly description: string;
  /** Label of a metric that the reader chooses values of, beside the namespace. */
  readonly variables?: Readonly<Record<string, string>>;
  readonly rows: Readonly<Record<string, readonly Panel[]>>;
}

const ns = 'namespace=~"$namespace"';
const rate = (metric: string, labels = '') => `rate(${metric}{${labels && `${labels}, `}${ns}}[$__rate_interval])`;
const quantile = (q: number, by: string, metric: string, labels = '') =>
  `histogram_quantile(${q}, sum by (le${by && `, ${by}`}) (${rate(`${metric}_bucket`, labels)}))`;

const requests = 'http_server_request_duration_seconds';
const calls = 'grpc_client_call_duration_seconds';
const attempts = 'grpc_client_attempt_duration_seconds';
const served = 'grpc_server_call_duration_seconds';

const service: Dashboard = {
  title: 'Tandem / service',
  description: 'What clients get: rate, errors and duration by route, and how much of the objectives is left.',
  rows: {
    Objectives: [
      {
        title: 'Alerts',
        type: 'table',
        unit: 'none',
        queries: { '': `ALERTS{alertname=~"Tandem.*", alertstate="firing", namespace=~"$namespace"}` },
      },
      {
        title: 'Failures: times what the budget allows',
        description: '1 uses up the budget of 30 days in 30 days. Above 14.4 for an hour somebody is called.',
        unit: 'short',
        queries: {
          '5 minutes': `tandem:failures:ratio_5m{${ns}} / 0.001`,
          '1 hour': `tandem:failures:ratio_1h{${ns}} / 0.001`,
          '6 hours': `tandem:failures:ratio_6h{${ns}} / 0.001`,
          '3 days': `tandem:failures:ratio_3d{${ns}} / 0.001`,
        },
      },
      {
        title: 'Slow answers: times what the budget allows',
        description: 'Slow is longer than 250 ms. Streams and failures are left out.',
        unit: 'short',
        queries: {
          '5 minutes': `tandem:slow_answers:ratio_5m{${ns}} / 0.01`,
          '1 hour': `tandem:slow_answers:ratio_1h{${ns}} / 0.01`,
          '6 hours': `tandem:slow_answers:ratio_6h{${ns}} / 0.01`,
          '3 days': `tandem:slow_answers:ratio_3d{${ns}} / 0.01`,
        },
      },
    ],
    Requests: [
      {
        title: 'Requests by route',
        unit: 'reqps',
        queries: { '{{method}} {{route}}': `sum by (method, route) (${rate(`${requests}_count`)})` },
      },
      {
        title: 'Failed, by route and code',
        description: '5xx, and streams that failed after their HTTP status.',
        unit: 'reqps',
        queries: {
          '{{route}} {{code}} {{grpc_code}}': `sum by (route, code, grpc_code) (${rate(`${requests}_count`, 'code=~"5.."')} or ${rate(
            `${requests}_count`,
            'code!~"5..", grpc_code=~"UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|DATA_LOSS"',
          )})`,
        },
      },
      {
        title: 'Replies by code',
        unit: 'reqps',
        queries: { '{{code}}': `sum by (code) (${rate(`${requests}_count`)})` },
      },
      {
        title: '50 %, by route',
        unit: 's',
        queries: { '{{method}} {{route}}': quantile(0.5, 'method, route', requests, 'form=""') },
      },
      {
        title: '95 %, by route',
        unit: 's',
        queries: { '{{method}} {{route}}': quantile(0.95, 'method, route', requests, 'form=""') },
      },
      {
        title: '99 %, by route',
        description: 'Each point is a trace where the data source leads exemplars to Jaeger.',
        unit: 's',
        queries: { '{{method}} {{route}}': quantile(0.99, 'method, route', requests, 'form=""') },
      },
    ],
    'Where the time goes': [
      {
        title: '99 % of all requests, and what of it is elsewhere',
        description: 'A gap between requests and calls is the gateway; between attempts and the greeter, the network.',
        unit: 's',
        queries: {
          requests: quantile(0.99, '', requests, 'form=""'),
          calls: quantile(0.99, '', calls),
          attempts: quantile(0.99, '', attempts),
          greeter: quantile(0.99, '', served),
        },
      },
      {
        title: '99 % by replica, as the greeters see it',
        unit: 's',
        queries: { '{{instance}}': quantile(0.99, 'instance', served) },
      },
      {
        title: 'Mean by replica, as the gateways see it',
        description: "Calls in flight over attempts per second (Little's law): a frozen replica shows here.",
        unit: 's',
        queries: {
          '{{endpoint}}': `sum by (endpoint) (tandem_channel_endpoint_in_flight{${ns}}) / sum by (endpoint) (${rate('tandem_channel_endpoint_attempts_total')})`,
        },
      },
      {
        title: 'Calls by greeter',
        unit: 'reqps',
        queries: { '{{instance}}': `sum by (instance) (${rate('grpc_server_call_started_total')})` },
      },
      {
        title: 'Calls by method and status',
        unit: 'reqps',
        queries: {
          '{{grpc_method}} {{grpc_status}}': `sum by (grpc_method, grpc_status) (${rate(`${served}_count`)})`,
        },
      },
      {
        title: 'Calls in flight by greeter',
        unit: 'short',
        queries: {
          '{{instance}}': `sum by (instance) (grpc_server_call_started_total{${ns}}) - sum by (instance) (${served}_count{${ns}})`,
        },
      },
    ],
  },
};

const up = 'upstream=~"$upstream"';
const gauge = (metric: string, labels = '') => `${metric}{${labels && `${labels}, `}${up}, ${ns}}`;

const meanSize = (direction: 'sent' | 'rcvd') => {
  const size = `grpc_client_attempt_${direction}_total_compressed_message_size_bytes`;
  const sum = (sample: string) => `sum by (grpc_method) (${rate(`${size}_${sample}`, up)})`;
  return `${sum('sum')} / ${sum('count')}`;
};

const channel: Dashboard = {
  title: 'Tandem / channel',
  description: 'How the gateways reach the replicas: endpoints, attempts, retries, health, backups.',
  variables: { upstream: 'tandem_channel_endpoints' },
  rows: {
    Endpoints: [
      {
        title: 'Endpoints by condition',
        description: 'As the gateway with the most of them sees it.',
        unit: 'short',
        queries: {
          '{{upstream}} {{condition}}': `max by (upstream, condition) (${gauge('tandem_channel_endpoints')})`,
        },
      },
      {
        title: 'Attempts by endpoint',
        unit: 'reqps',
        queries: { '{{endpoint}}': `sum by (endpoint) (${rate('tandem_channel_endpoint_attempts_total', up)})` },
      },
      {
        title: 'Failed share by endpoint',
        unit: 'percentunit',
        queries: {
          '{{endpoint}}': `sum by (endpoint) (${rate('tandem_channel_endpoint_failures_total', up)}) / sum by (endpoint) (${rate('tandem_channel_endpoint_attempts_total', up)})`,
        },
      },
      {
        title: 'In flight by endpoint',
        unit: 'short',
        queries: { '{{endpoint}}': `sum by (endpoint) (${gauge('tandem_channel_endpoint_in_flight')})` },
      },
      {
        title: 'Ejections',
        unit: 'ops',
        queries: {
          '{{upstream}} {{reason}}': `sum by (upstream, reason) (${rate('tandem_channel_ejections_total', up)})`,
        },
      },
      {
        title: 'Connections that broke or could not be made',
        unit: 'ops',
        queries: { '{{upstream}}': `sum by (upstream) (${rate('tandem_channel_connection_failures_total', up)})` },
      },
    ],
    Attempts: [
      {
        title: 'Attempts by reason',
        description: 'repick: the one before was never seen by a replica.',
        unit: 'reqps',
        queries: { '{{reason}}': `sum by (reason) (${rate('grpc_client_attempt_started_total', up)})` },
      },
      {
        title: 'Attempts by status',
        unit: 'reqps',
        queries: { '{{grpc_status}}': `sum by (grpc_status) (${rate(`${attempts}_count`, up)})` },
      },
      {
        title: 'Calls by status',
        description: 'What is left of the failures after all attempts.',
        unit: 'reqps',
        queries: { '{{grpc_status}}': `sum by (grpc_status) (${rate(`${calls}_count`, up)})` },
      },
      {
        title: '99 % by method',
        unit: 's',
        queries: {
          'call {{grpc_method}}': quantile(0.99, 'grpc_method', calls, up),
          'attempt {{grpc_method}}': quantile(0.99, 'grpc_method', attempts, up),
        },
      },
      {
        title: 'Budget of retries and hedges',
        description: 'None are made with half of the tokens or less.',
        unit: 'short',
        queries: { '{{upstream}} {{instance}}': gauge('tandem_channel_retry_budget_tokens') },
      },
      {
        title: 'Attempts not made, and not seen',
        unit: 'reqps',
        queries: {
          'no budget: {{upstream}}': `sum by (upstream) (${rate('tandem_channel_budget_exhausted_total', up)})`,
          'not seen: {{upstream}}': `sum by (upstream) (${rate('tandem_channel_unseen_attempts_total', up)})`,
        },
      },
      {
        title: 'Mean size of what a call sends and receives',
        unit: 'bytes',
        queries: {
          'sent {{grpc_method}}': meanSize('sent'),
          'received {{grpc_method}}': meanSize('rcvd'),
        },
      },
    ],
    'Targets and names': [
      {
        title: 'Target that takes the calls',
        description: '0 is the primary, the others are its backups.',
        unit: 'short',
        queries: { '{{upstream}} {{instance}}': gauge('tandem_channel_active_priority') },
      },
      {
        title: 'Switches between targets',
        unit: 'ops',
        queries: { '{{upstream}}': `sum by (upstream) (${rate('tandem_channel_priority_switches_total', up)})` },
      },
      {
        title: 'Calls that wait for a replica',
        unit: 'short',
        queries: { '{{upstream}}': `sum by (upstream) (${gauge('tandem_channel_waiting_calls')})` },
      },
      {
        title: 'Age of the endpoints',
        description: 'Grows without end for lists and files, which are confirmed when they change.',
        unit: 's',
        queries: { '{{upstream}} {{instance}}': gauge('tandem_channel_endpoints_age_seconds') },
      },
      {
        title: 'Resolver errors',
        unit: 'ops',
        queries: { '{{upstream}}': `sum by (upstream) (${rate('tandem_channel_resolver_errors_total', up)})` },
      },
      {
        title: 'TLS files that could not be used',
        unit: 'ops',
        queries: {
          'for {{upstream}}': `sum by (upstream) (${rate('tandem_channel_tls_errors_total', up)})`,
          'of {{job}}': `sum by (job) (${rate('tandem_server_tls_errors_total')})`,
        },
      },
    ],
    'Connections at the greeters': [
      {
        title: 'Open connections',
        description: 'A greeter that has none is known to no gateway.',
        unit: 'short',
        queries: { '{{instance}}': `tandem_server_open_connections{${ns}}` },
      },
      {
        title: 'Closed, by why',
        description: 'Many of `client` are clients that connect anew for each call, or a network that breaks.',
        unit: 'ops',
        queries: { '{{reason}}': `sum by (reason) (${rate('tandem_server_connections_closed_total')})` },
      },
      {
        title: 'TLS handshakes that failed',
        unit: 'ops',
        queries: { '{{reason}}': `sum by (reason) (${rate('tandem_server_tls_handshake_failures_total')})` },
      },
    ],
  },
};

const gateway: Dashboard = {
  title: 'Tandem / gateway',
  description: 'What the gateway does before it calls: admission, quotas, cache, tokens, streams.',
  rows: {
    Admission: [
      {
        title: 'Calls in flight, and their limit',
        unit: 'short',
        queries: {
          'limit {{upstream}} {{instance}}': `tandem_admission_limit{${ns}}`,
          'in flight {{upstream}} {{instance}}': `tandem_admission_in_flight{${ns}}`,
        },
      },
      {
        title: 'Calls that wait to be let in',
        unit: 'short',
        queries: {
          '{{upstream}} {{priority}}': `sum by (upstream, priority) (tandem_admission_queued{${ns}})`,
        },
      },
      {
        title: 'Shed, by why',
        unit: 'reqps',
        queries: {
          '{{upstream}} {{reason}} {{priority}}': `sum by (upstream, reason, priority) (${rate('tandem_admission_shed_total')})`,
        },
      },
    ],
    Quotas: [
      {
        title: 'Requests with a quota, by result',
        unit: 'reqps',
        queries: { '{{policy}} {{result}}': `sum by (policy, result) (${rate('tandem_quota_requests_total')})` },
      },
      {
        title: 'Gateways whose quotas Redis counts',
        unit: 'short',
        queries: { shared: `sum(tandem_quota_redis_ready{${ns}})`, all: `count(tandem_quota_redis_ready{${ns}})` },
      },
      {
        title: 'Requests that Redis did not answer for',
        unit: 'reqps',
        queries: { '{{instance}}': rate('tandem_quota_redis_failures_total') },
      },
    ],
    Cache: [
      {
        title: 'Answers by outcome',
        unit: 'reqps',
        queries: { '{{outcome}}': `sum by (outcome) (${rate('tandem_cache_lookups_total')})` },
      },
      {
        title: 'Share of answers without a call of their own',
        unit: 'percentunit',
        queries: {
          '{{grpc_method}}': `sum by (grpc_method) (${rate('tandem_cache_lookups_total', 'outcome=~"hit|stale|collapsed|stale-if-error"')}) / sum by (grpc_method) (${rate('tandem_cache_lookups_total')})`,
        },
      },
      {
        title: 'Replies in memory',
        unit: 'bytes',
        queries: { '{{instance}}': `tandem_cache_bytes{${ns}}` },
      },
      {
        title: 'Replies kept, and put out for want of room',
        unit: 'short',
        queries: {
          'kept {{instance}}': `tandem_cache_entries{${ns}}`,
          'put out per second {{instance}}': rate('tandem_cache_evictions_total'),
        },
      },
      {
        title: 'Shared calls, and who waits for them',
        unit: 'short',
        queries: {
          calls: `sum(tandem_cache_calls{${ns}})`,
          waiters: `sum(tandem_cache_waiters{${ns}})`,
        },
      },
      {
        title: 'Refreshes by status',
        unit: 'ops',
        queries: { '{{grpc_status}}': `sum by (grpc_status) (${rate('tandem_cache_refreshes_total')})` },
      },
    ],
    Connections: [
      {
        title: 'Open connections',
        unit: 'short',
        queries: { '{{instance}}': `http_server_open_connections{${ns}}` },
      },
      {
        title: 'Ended, as no request could be read',
        unit: 'ops',
        queries: { '{{code}}': `sum by (code) (${rate('http_server_refused_connections_total')})` },
      },
    ],
    'Tokens and streams': [
      {
        title: 'Requests with a token, by outcome',
        unit: 'reqps',
        queries: {
          '{{provider}} {{outcome}}': `sum by (provider, outcome) (${rate('tandem_auth_requests_total')})`,
        },
      },
      {
        title: 'Age of the keys',
        description: 'Fetched every 10 minutes, used for 24 hours.',
        unit: 's',
        queries: {
          '{{provider}} {{instance}}': `time() - tandem_auth_jwks_fetched_timestamp_seconds{${ns}}`,
        },
      },
      {
        title: 'Fetches of keys',
        unit: 'ops',
        queries: { '{{provider}} {{result}}': `sum by (provider, result) (${rate('tandem_auth_jwks_fetches_total')})` },
      },
      {
        title: 'Open streams',
        unit: 'short',
        queries: { '{{form}}': `sum by (form) (http_server_open_streams{${ns}})` },
      },
      {
        title: 'Streams that ended, by code',
        unit: 'reqps',
        queries: {
          '{{form}} {{grpc_code}}': `sum by (form, grpc_code) (${rate(`${requests}_count`, 'form!=""')})`,
        },
      },
      {
        title: 'Clients that went away',
        unit: 'reqps',
        queries: { '{{route}}': `sum by (route) (${rate(`${requests}_count`, 'code="499"')})` },
      },
    ],
  },
};

const of = `job=~"$job", ${ns}`;
const runtime: Dashboard = {
  title: 'Tandem / runtime',
  description: 'The processes: what runs, how busy it is, and what it needs.',
  variables: { job: 'tandem_build_info' },
  rows: {
    'What runs': [
      {
        title: 'Versions',
        type: 'table',
        unit: 'none',
        queries: { '': `count by (service, version, node_version) (tandem_build_info{${of}})` },
      },
      {
        title: 'Different settings',
        description: 'More than one for longer than a rollout: replicas that were not replaced.',
        type: 'stat',
        unit: 'none',
        queries: { '{{job}}': `count by (job) (count by (job, hash) (tandem_config_info{${of}}))` },
      },
      {
        title: 'Since the start',
        unit: 's',
        queries: { '{{job}} {{instance}}': `time() - process_start_time_seconds{${of}}` },
      },
    ],
    Load: [
      {
        title: 'CPU',
        description: 'Node runs on one core: 1 is all of it.',
        unit: 'short',
        queries: { '{{job}} {{instance}}': `rate(process_cpu_seconds_total{${of}}[$__rate_interval])` },
      },
      {
        title: 'Event loop: 99 % come at most so late',
        unit: 's',
        queries: { '{{job}} {{instance}}': `nodejs_eventloop_lag_p99_seconds{${of}}` },
      },
      {
        title: 'Event loop: the latest',
        unit: 's',
        queries: { '{{job}} {{instance}}': `nodejs_eventloop_lag_max_seconds{${of}}` },
      },
      {
        title: 'Share of the time in garbage collections',
        unit: 'percentunit',
        queries: {
          '{{job}} {{instance}} {{kind}}': `sum by (job, instance, kind) (rate(nodejs_gc_duration_seconds_sum{${of}}[$__rate_interval]))`,
        },
      },
      {
        title: 'Handles',
        unit: 'short',
        queries: { '{{job}} {{instance}} {{type}}': `nodejs_active_handles{${of}}` },
      },
      {
        title: 'Open files and sockets, of those allowed',
        unit: 'percentunit',
        queries: { '{{job}} {{instance}}': `process_open_fds{${of}} / process_max_fds{${of}}` },
      },
    ],
    'Memory and telemetry': [
      {
        title: 'Memory',
        unit: 'bytes',
        queries: { '{{job}} {{instance}}': `process_resident_memory_bytes{${of}}` },
      },
      {
        title: 'Heap in use',
        unit: 'bytes',
        queries: { '{{job}} {{instance}}': `nodejs_heap_size_used_bytes{${of}}` },
      },
      {
        title: 'Spans that were not delivered',
        unit: 'ops',
        queries: {
          '{{job}} {{instance}} {{reason}}': `rate(tandem_telemetry_spans_dropped_total{${of}}[$__rate_interval])`,
        },
      },
    ],
  },
};

const dashboards: Readonly<Record<string, Dashboard>> = { service, channel, gateway, runtime };

const columns = 24;
const size = { w: 8, h: 8 } as const;
const datasource = { type: 'prometheus', uid: '${datasource}' } as const;

/** The model that Grafana 10 and later read: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/ */
function toGrafana(name: string, { title, description, variables = {}, rows }: Dashboard): object {
  const panels: object[] = [];
  let y = 0;
  for (const [heading, members] of Object.entries(rows)) {
    panels.push({
      id: panels.length + 1,
      type: 'row',
      title: heading,
      collapsed: false,
      panels: [],
      gridPos: { x: 0, y, w: columns, h: 1 },
    });
    y += 1;
    for (const [index, panel] of members.entries()) {
      const x = (index * size.w) % columns;
      if (index > 0 && x === 0) y += size.h;
      panels.push({ id: panels.length + 1, ...toPanel(panel), gridPos: { x, y, ...size } });
    }
    y += size.h;
  }
  return {
    uid: `tandem-${name}`,
    title,
    description,
    tags: ['tandem'],
    schemaVersion: 39,
    editable: true,
    graphTooltip: 1,
    refresh: '30s',
    time: { from: 'now-1h', to: 'now' },
    timezone: 'browser',
    links: [
      { type: 'dashboards', title: 'Tandem', tags: ['tandem'], asDropdown: false, includeVars: true, keepTime: true },
    ],
    templating: {
      list: [
        { type: 'datasource', name: 'datasource', label: 'Data source', query: 'prometheus', current: {} },
        toVariable('namespace', 'tandem_build_info'),
        ...Object.entries(variables).map(([label, metric]) => toVariable(label, metric)),
      ],
    },
    panels,
  };
}

function toPanel({ title, description, type = 'timeseries', unit, queries }: Panel): object {
  const targets = Object.entries(queries).map(([legendFormat, expr], index) => ({
    refId: String.fromCharCode('A'.charCodeAt(0) + index),
    datasource,
    expr,
    ...(type === 'timeseries' ? { legendFormat, exemplar: expr.includes('_bucket') } : { legendFormat, instant: true }),
    ...(type === 'table' && { format: 'table' }),
  }));
  return {
    type,
    title,
    ...(description && { description }),
    datasource,
    targets,
    fieldConfig: { defaults: { unit, ...(unit !== 'none' && { min: 0 }) }, overrides: [] },
    ...(type === 'timeseries' && {
      options: { legend: { displayMode: 'list', placement: 'bottom' }, tooltip: { mode: 'multi', sort: 'desc' } },
    }),
  };
}

/** All of them unless chosen; a label that a metric does not have counts as empty, and `.*` takes that too. */
function toVariable(label: string, metric: string): object {
  return {
    type: 'query',
    name: label,
    label,
    datasource,
    query: { query: `label_values(${metric}, ${label})`, refId: label },
    refresh: 2,
    multi: true,
    includeAll: true,
    allValue: '.*',
    current: { text: 'All', value: '$__all' },
  };
}

const [name = ''] = process.argv.slice(2);
const dashboard = dashboards[name];
if (dashboard === undefined)
  throw new Error(`usage: node deploy/observability/dashboards.ts ${Object.keys(dashboards).join('|')}`);
process.stdout.write(`${JSON.stringify(toGrafana(name, dashboard), null, 2)}\n`);
