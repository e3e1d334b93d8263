import { readFileSync } from 'node:fs';
import process from 'node:process';
import { readValues } from './values.ts';

// Run by `make charts`: the JSON Schema of a chart's values, on standard output. Every object is strict, so that a typo
// fails `helm install`; the descriptions are the comments of values.yaml; the gateway's file has its own schema in it.

/** Of the JSON Schema that Helm takes: draft 7. */
type Schema = Readonly<Record<string, unknown>>;
type Properties = Readonly<Record<string, Schema>>;

const text: Schema = { type: 'string' };
const boolean: Schema = { type: 'boolean' };
const count: Schema = { type: 'integer', minimum: 0 };
const positive: Schema = { type: 'integer', minimum: 1 };
const port: Schema = { type: 'integer', minimum: 1, maximum: 65_535 };
const portOrName: Schema = { type: ['integer', 'string'] };
const name: Schema = { type: 'string', maxLength: 253, pattern: '^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$' };
const duration: Schema = { type: 'string', pattern: '^(0|[0-9]+(\\.[0-9]+)?(ms|s|m|h))$' };
const quantity: Schema = {
  type: ['string', 'number'],
  pattern: '^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$',
};
const texts: Schema = { type: 'object', additionalProperties: text };
/** What Kubernetes alone can judge. */
const any: Schema = { type: 'object' };

const oneOf = (...words: readonly string[]): Schema => ({ enum: words });
const listOf = (items: Schema): Schema => ({ type: 'array', items });
const object = (properties: Properties, required: readonly string[] = []): Schema => ({
  type: 'object',
  properties,
  ...(required.length > 0 && { required }),
  additionalProperties: false,
});

const selector = object({
  matchLabels: texts,
  matchExpressions: listOf(object({ key: text, operator: text, values: listOf(text) }, ['key', 'operator'])),
});
const peers = listOf(
  object({
    podSelector: selector,
    namespaceSelector: selector,
    ipBlock: object({ cidr: text, except: listOf(text) }, ['cidr']),
  }),
);
const policyPorts = listOf(object({ port: portOrName, endPort: port, protocol: oneOf('TCP', 'UDP', 'SCTP') }));
const amounts: Schema = {
  ...object({ cpu: quantity, memory: quantity, 'ephemeral-storage': quantity }),
  patternProperties: { '^hugepages-|/': quantity },
};
const probe = object({
  initialDelaySeconds: count,
  periodSeconds: positive,
  timeoutSeconds: positive,
  failureThreshold: positive,
  terminationGracePeriodSeconds: positive,
});
const scalingRules = object({
  stabilizationWindowSeconds: count,
  selectPolicy: oneOf('Max', 'Min', 'Disabled'),
  tolerance: quantity,
  policies: listOf(
    object({ type: oneOf('Pods', 'Percent'), value: positive, periodSeconds: positive }, [
      'type',
      'value',
      'periodSeconds',
    ]),
  ),
});
const seccompProfile = object({
  type: oneOf('RuntimeDefault', 'Localhost', 'Unconfined'),
  localhostProfile: text,
});
const userSettings: Properties = {
  runAsNonRoot: boolean,
  runAsUser: count,
  runAsGroup: count,
  seccompProfile,
  appArmorProfile: any,
  seLinuxOptions: any,
  windowsOptions: any,
};
const ipFamilyPolicy = oneOf('PreferDualStack', 'SingleStack', 'RequireDualStack');

const common: Properties = {
  replicas: count,
  image: object({
    repository: { ...text, minLength: 1 },
    tag: { type: 'string', pattern: '^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$' },
    digest: { type: 'string', pattern: '^(sha256:[0-9a-f]{64})?$' },
    pullPolicy: oneOf('IfNotPresent', 'Always', 'Never'),
  }),
  imagePullSecrets: listOf(object({ name }, ['name'])),
  nameOverride: name,
  fullnameOverride: name,
  drain: object({ delay: duration, grace: duration }),
  log: object({
    level: oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal'),
    format: oneOf('auto', 'json', 'pretty'),
  }),
  tracing: object({
    endpoint: { type: 'string', pattern: '^(https?://.+)?$' },
    protocol: oneOf('http/protobuf', 'http/json', 'grpc'),
    // `--set` makes texts of fractions.
    ratio: { type: ['number', 'string'], minimum: 0, maximum: 1, pattern: '^(0(\\.[0-9]+)?|1(\\.0+)?)$' },
  }),
  resources: object({ requests: amounts, limits: amounts }),
  autoscaling: object({
    enabled: boolean,
    minReplicas: positive,
    maxReplicas: positive,
    targetCPUUtilizationPercentage: positive,
    extraMetrics: listOf({ ...any, required: ['type'] }),
    behavior: object({ scaleUp: scalingRules, scaleDown: scalingRules }),
  }),
  podDisruptionBudget: object({
    enabled: boolean,
    maxUnavailable: { type: ['integer', 'string'], minimum: 0, pattern: '^[0-9]+%$' },
    unhealthyPodEvictionPolicy: oneOf('AlwaysAllow', 'IfHealthyBudget'),
  }),
  topologySpreadConstraints: listOf(
    object(
      {
        topologyKey: text,
        maxSkew: positive,
        whenUnsatisfiable: oneOf('ScheduleAnyway', 'DoNotSchedule'),
        minDomains: positive,
        nodeAffinityPolicy: oneOf('Honor', 'Ignore'),
        nodeTaintsPolicy: oneOf('Honor', 'Ignore'),
      },
      ['topologyKey', 'maxSkew', 'whenUnsatisfiable'],
    ),
  ),
  serviceAccount: object({ create: boolean, name, annotations: texts }),
  serviceMonitor: object({ enabled: boolean, interval: duration, labels: texts }),
  startupProbe: probe,
  readinessProbe: probe,
  livenessProbe: probe,
  command: listOf(text),
  args: listOf(text),
  nodeOptions: text,
  extraEnv: listOf(object({ name: { ...text, minLength: 1 }, value: text, valueFrom: any }, ['name'])),
  extraVolumes: listOf({ ...any, required: ['name'], minProperties: 2 }),
  extraVolumeMounts: listOf(
    object(
      {
        name,
        mountPath: text,
        readOnly: boolean,
        recursiveReadOnly: text,
        subPath: text,
        subPathExpr: text,
        mountPropagation: text,
      },
      ['name', 'mountPath'],
    ),
  ),
  commonLabels: texts,
  commonAnnotations: texts,
  podLabels: texts,
  podAnnotations: texts,
  priorityClassName: name,
  nodeSelector: texts,
  tolerations: listOf(
    object({
      key: text,
      operator: oneOf('Equal', 'Exists'),
      value: text,
      effect: oneOf('NoSchedule', 'PreferNoSchedule', 'NoExecute'),
      tolerationSeconds: { type: 'integer' },
    }),
  ),
  affinity: object({ nodeAffinity: any, podAffinity: any, podAntiAffinity: any }),
  podSecurityContext: object({
    ...userSettings,
    fsGroup: count,
    fsGroupChangePolicy: oneOf('Always', 'OnRootMismatch'),
    supplementalGroups: listOf(count),
    supplementalGroupsPolicy: oneOf('Merge', 'Strict'),
    sysctls: listOf(object({ name: text, value: text }, ['name', 'value'])),
  }),
  securityContext: object({
    ...userSettings,
    allowPrivilegeEscalation: boolean,
    privileged: boolean,
    readOnlyRootFilesystem: boolean,
    procMount: text,
    capabilities: object({ add: listOf(text), drop: listOf(text) }),
  }),
};

const networkPolicy: Properties = {
  enabled: boolean,
  from: peers,
  adminFrom: peers,
  extraEgress: listOf(object({ ports: policyPorts, to: peers })),
};

const charts: Readonly<Record<string, () => Properties>> = {
  greeter: () => ({
    ...common,
    tls: object({ enabled: boolean, secretName: name, verifyClients: boolean }),
    service: object({ annotations: texts, ipFamilyPolicy }),
    networkPolicy: object(networkPolicy),
  }),
  gateway: () => ({
    ...common,
    tls: object({ enabled: boolean, secretName: name, clientCertificate: boolean, serverName: text }),
    backup: { type: 'string', pattern: '^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)?)?$' },
    descriptors: object({ configMap: name, key: { ...text, minLength: 1 } }),
    config: { ...readSchema('../services/gateway/config.schema.json'), required: ['upstreams'] },
    rbac: object({ create: boolean }),
    service: object({
      type: oneOf('ClusterIP', 'NodePort', 'LoadBalancer'),
      port,
      nodePort: { type: 'integer', minimum: 0, maximum: 65_535 },
      annotations: texts,
      ipFamilyPolicy,
    }),
    ingress: object({
      enabled: boolean,
      className: name,
      annotations: texts,
      hosts: listOf(
        object(
          {
            host: text,
            paths: listOf(
              object({ path: text, pathType: oneOf('Exact', 'Prefix', 'ImplementationSpecific') }, [
                'path',
                'pathType',
              ]),
            ),
          },
          ['host', 'paths'],
        ),
      ),
      tls: listOf(object({ secretName: name, hosts: listOf(text) })),
    }),
    httpRoute: object({
      enabled: boolean,
      annotations: texts,
      parentRefs: listOf(object({ group: text, kind: text, namespace: name, name, sectionName: text, port }, ['name'])),
      hostnames: listOf(text),
      matches: listOf(object({ path: any, headers: listOf(any), queryParams: listOf(any), method: text })),
    }),
    networkPolicy: object({ ...networkPolicy, apiServerPorts: listOf(port) }),
    test: object({ enabled: boolean, path: { type: 'string', pattern: '^/' } }),
  }),
};

function readSchema(path: string): Schema {
  const { $schema: _, ...schema } = JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')) as Schema;
  return schema;
}

/** Puts each comment of values.yaml to its property. Throws an `Error` if one of the two has what the other has not. */
function describe(chart: string, properties: Properties): Properties {
  const described = structuredClone(properties) as Record<string, Record<string, unknown>>;
  const documented = new Set<unknown>([described]);
  for (const { path, description } of readValues(chart)) {
    let inside = described;
    for (const key of path.slice(0, -1)) {
      inside = (inside[key] as { properties: typeof described }).properties;
      documented.add(inside);
    }
    const property = inside[path.at(-1) ?? ''];
    if (property === undefined) throw new Error(`helm/values-schema.ts has no ${path.join('.')} for ${chart}`);
    property.description = description;
  }
  for (const inside of documented as Set<typeof described>) {
    for (const [key, { description }] of Object.entries(inside)) {
      if (description === undefined) throw new Error(`helm/${chart}/values.yaml has no ${key} of the schema`);
    }
  }
  return described;
}

const [chart = ''] = process.argv.slice(2);
const properties = charts[chart]?.();
if (properties === undefined) throw new Error(`must be called with one of ${Object.keys(charts).join(', ')}`);
const schema = {
  $schema: 'http://json-schema.org/draft-07/schema#',
  title: `Values of the chart ${chart}`,
  ...object({
    ...describe(chart, properties),
    global: { ...any, description: 'What Helm gives to all charts of a release. Not used.' },
    common: { ...any, description: 'What Helm gives to the library chart. Not used.' },
  }),
};
process.stdout.write(`${JSON.stringify(schema, null, 2)}\n`);
