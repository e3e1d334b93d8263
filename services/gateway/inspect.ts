import { pino } from 'pino';
import { noTracing } from '#runtime/process/tracing.ts';
import { type App, createApp } from './app.ts';
import type { GatewayConfig } from './config.ts';

/**
 * The text of `--check-config`.
 *
 * @throws ConfigError if the gateway would not start so.
 */
export function checkConfig(config: GatewayConfig): string {
  const { routes } = build(config);
  const upstreams = [...new Set(routes.map(({ upstream }) => upstream))];
  return `the configuration is good: ${count(routes.length, 'route')}, ${count(upstreams.length, 'upstream')} (${upstreams.join(', ')})\n`;
}

/**
 * The text of `--print-routes`: a line for each route, in columns.
 *
 * @throws ConfigError if the gateway would not start so.
 */
export function printRoutes(config: GatewayConfig): string {
  const rows = build(config).routes.map(({ httpMethod, template, service: { method }, upstream }) => {
    const kind = method.requestStream
      ? method.responseStream
        ? 'bidi-stream'
        : 'client-stream'
      : method.responseStream
        ? 'server-stream'
        : 'unary';
    return [httpMethod, template.text, method.path.slice(1), kind, upstream];
  });
  const table = [['METHOD', 'PATH', 'GRPC METHOD', 'KIND', 'UPSTREAM'], ...rows];
  const widths = table[0]?.map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0))) ?? [];
  const lines = table.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  '));
  return `${lines.map((line) => line.trimEnd()).join('\n')}\n`;
}

/** The whole gateway, never run. Nothing connects: it does not matter whether there is a cluster around. */
function build(config: GatewayConfig): App {
  const cluster = { server: 'https://kubernetes.default.svc', namespace: 'default' };
  return createApp(config, pino({ enabled: false }), noTracing, cluster);
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}
