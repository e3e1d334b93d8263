import process from 'node:process';
import { hashConfig, maskConfig } from '#runtime/process/config.ts';
import { runMain, runProgram } from '#runtime/process/lifecycle.ts';
import { createLog } from '#runtime/process/log.ts';
import { startTracing } from '#runtime/process/tracing.ts';
import { settings } from './config.ts';

await runMain(process, { program: 'greeter', settings }, async (config) => {
  const { podName, logLevel, logFormat, drainDelayMs, drainGraceMs } = config;
  const { env, stdout } = process;
  const log = createLog({ service: 'greeter', podName, level: logLevel, format: logFormat, stdout });
  log.info({ config: maskConfig(settings, config), configHash: hashConfig(settings, config) }, 'starting');
  const tracing = await startTracing({ env, service: 'greeter', podName, log });
  // Only now, so that a mistake in the settings is told at once.
  const { createApp } = await import('./app.ts');
  await runProgram(process, { ...createApp(config, log, tracing), tracing, log, drainDelayMs, drainGraceMs });
});
