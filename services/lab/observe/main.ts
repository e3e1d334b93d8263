import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ConfigError, port, processSettings, type Settings } from '#runtime/process/config.ts';
import { runMain } from '#runtime/process/lifecycle.ts';
import { labSettings } from '../config.ts';
import { findPortProblems } from '../ports.ts';
import { createReaper } from '../reaper.ts';
import { jaegerConfig } from './jaeger-config.ts';
import { writeScrapeTargets } from './scrape-targets.ts';
import { startTool, type Tool } from './tool.ts';

const settings = {
  adminPort: { ...processSettings.adminPort, help: labSettings.adminPort.help },
  prometheusPort: { env: 'PROMETHEUS_PORT', help: 'port of Prometheus (9099)', default: 9_099, schema: port() },
  jaegerPort: { env: 'JAEGER_PORT', help: 'port of Jaeger (16686)', default: 16_686, schema: port() },
  otlpPort: { env: 'OTLP_PORT', help: 'port at which Jaeger takes traces (4318)', default: 4_318, schema: port() },
} satisfies Settings;

const rules = fileURLToPath(new URL('../../../deploy/observability/rules.yaml', import.meta.url));
const keptTraces = 10_000;
const readyTimeoutMs = 60_000;
const stopGraceMs = 5_000;
/** How often the ports of the lab are looked at. */
const lookIntervalMs = 2_000;

await runMain(process, { program: 'observe', settings }, async (config) => {
  const { adminPort, prometheusPort, jaegerPort, otlpPort } = config;
  const problems = await findPortProblems([
    { port: prometheusPort, who: 'Prometheus', variable: 'PROMETHEUS_PORT' },
    { port: jaegerPort, who: 'Jaeger', variable: 'JAEGER_PORT' },
    { port: otlpPort, who: "Jaeger's OTLP", variable: 'OTLP_PORT' },
  ]);
  if (problems.length > 0) throw new ConfigError(problems);

  const { promise: quit, resolve: stop } = Promise.withResolvers<string | undefined>();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.removeAllListeners(signal).on(signal, () => stop(undefined));
  }
  const folder = await mkdtemp(join(tmpdir(), 'tandem-observe-'));
  const reaper = createReaper();
  reaper.start(folder);
  const tools: Tool[] = [];

  async function start(name: string, args: readonly string[], readyUrl: string): Promise<boolean> {
    const tool = await startTool(name, args, { ...process.env, OTEL_TRACES_SAMPLER: 'always_off' }); // Jaeger's own
    if (tool === undefined) return false;
    tools.push(tool);
    reaper.watch(tool.pid);
    void tool.exited.then(() => stop(`${name} has ended`));
    await tool.ready(readyUrl, readyTimeoutMs);
    return true;
  }

  async function startJaeger(): Promise<string> {
    const file = join(folder, 'jaeger.json');
    await writeFile(file, jaegerConfig({ otlpHttp: otlpPort, query: jaegerPort }, keptTraces));
    return (await start('jaeger', ['--config', file], `http://127.0.0.1:${jaegerPort}/api/services`))
      ? `Jaeger      http://localhost:${jaegerPort}   for OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:${otlpPort} make run`
      : 'Jaeger      is not installed (https://www.jaegertracing.io/download): no traces but those of /introspection/traces';
  }

  async function startPrometheus(): Promise<string> {
    const file = join(folder, 'prometheus.json'); // which is YAML
    const targets = join(folder, 'targets.json');
    await writeScrapeTargets(targets, adminPort, prometheusPort);
    const looking = setInterval(() => void writeScrapeTargets(targets, adminPort, prometheusPort), lookIntervalMs);
    void quit.then(() => clearInterval(looking));
    await writeFile(
      file,
      JSON.stringify({
        global: { scrape_interval: '5s', evaluation_interval: '15s' },
        rule_files: [rules],
        scrape_configs: [{ job_name: 'lab', file_sd_configs: [{ files: [targets] }] }],
      }),
    );
    const args = [
      `--config.file=${file}`,
      `--storage.tsdb.path=${join(folder, 'prometheus')}`,
      `--web.listen-address=127.0.0.1:${prometheusPort}`,
      '--enable-feature=exemplar-storage',
      '--log.level=error',
    ];
    return (await start('prometheus', args, `http://127.0.0.1:${prometheusPort}/-/ready`))
      ? `Prometheus  http://localhost:${prometheusPort}/alerts`
      : 'Prometheus  is not installed (https://prometheus.io/download): no metrics but those of /metrics';
  }

  void Promise.all([startJaeger(), startPrometheus()]).then(
    (lines) => {
      process.stdout.write(`${lines.join('\n')}\n`);
      if (tools.length === 0) stop('there is nothing to start');
    },
    (error: Error) => stop(error.message),
  );
  const problem = await quit;
  await Promise.all(tools.map((tool) => tool.stop(stopGraceMs)));
  await reaper.stop();
  if (problem !== undefined) process.stderr.write(`observe: ${problem}\n`);
  process.exit(problem === undefined ? 0 : 1);
});
