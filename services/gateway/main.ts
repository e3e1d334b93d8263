import process from 'node:process';
import { inClusterAccess } from '#runtime/channel/resolver/kubernetes.ts';
import { hashConfig, maskConfig } from '#runtime/process/config.ts';
import { runMain, runProgram } from '#runtime/process/lifecycle.ts';
import { createLog } from '#runtime/process/log.ts';
import { startTracing } from '#runtime/process/tracing.ts';
import { settings } from './config.ts';

await runMain(process, { program: 'gateway', settings }, async (config) => {
  const { podName, logLevel, logFormat, drainDelayMs, drainGraceMs } = config;
  const { env, stdout } = process;
  if (config.checkConfig || config.printRoutes) {
    const { checkConfig, printRoutes } = await import('./inspect.ts');
    stdout.write(config.printRoutes ? printRoutes(config) : checkConfig(config));
    process.exit(0);
  }
  const log = createLog({ service: 'gateway', podName, level: logLevel, format: logFormat, stdout });
  log.info({ config: maskConfig(settings, config), configHash: hashConfig(settings, config) }, 'starting');
  const tracing = await startTracing({ env, service: 'gateway', podName, log });
  // Only now, so that a mistake in the settings is told at once.
  const { createApp } = await import('./app.ts');
  const kubernetes = config.kubernetesApi === undefined ? inClusterAccess(env) : { server: config.kubernetesApi };
  const { program, admin } = createApp(config, log, tracing, kubernetes);
  await runProgram(process, { program, admin, tracing, log, drainDelayMs, drainGraceMs });
});
