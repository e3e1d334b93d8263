import process from 'node:process';
import { inClusterAccess } from '#runtime/channel/resolver/kubernetes.ts';
import { maskConfig } from '#runtime/process/config.ts';
import { runMain, runProgram } from '#runtime/process/lifecycle.ts';
import { createLog } from '#runtime/process/log.ts';
import { startTracing } from '#runtime/process/tracing.ts';
import { settings } from './config.ts';

await runMain(process, { program: 'gateway', settings }, async (config) => {
  const { podName, logLevel, logFormat, drainDelayMs, drainGraceMs } = config;
  const { env, stdout } = process;
  const log = createLog({ service: 'gateway', podName, level: logLevel, format: logFormat, stdout });
  log.info({ config: maskConfig(settings, config) }, 'starting');
  const tracing = await startTracing({ env, service: 'gateway', podName, log });
  // Only now, since tracing must come before grpc-js.
  const { createApp } = await import('./app.ts');
  const kubernetes = config.kubernetesApi === undefined ? inClusterAccess(env) : { server: config.kubernetesApi };
  await runProgram(process, {
    ...createApp(config, log, tracing, kubernetes),
    tracing,
    log,
    drainDelayMs,
    drainGraceMs,
  });
});
