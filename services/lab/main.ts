import { ConfigError } from '#runtime/process/config.ts';
import { runMain } from '#runtime/process/lifecycle.ts';
import { createLog } from '#runtime/process/log.ts';
import { labSettings } from './config.ts';
import { createLab, type Lab } from './lab.ts';
import { createLiveOutput } from './live-output.ts';
import type { LabUrls } from './output.ts';
import { createPlainOutput } from './plain-output.ts';
import { findPortProblems, wantedPorts } from './ports.ts';

const { env, stdin, stdout, stderr } = process;

await runMain(process, { program: 'lab', settings: labSettings }, async (config) => {
  const { replicas, logLevel, logFormat, drainDelayMs, drainGraceMs } = config;
  const ports = { gateway: config.port, admin: config.adminPort, greeter: config.greeterPort };
  const problems = await findPortProblems(wantedPorts(ports, replicas));
  if (problems.length > 0) throw new ConfigError(problems);

  const quit = Promise.withResolvers<void>();
  const live = stdin.isTTY && stdout.isTTY && env.TERM !== 'dumb';
  const output = live
    ? createLiveOutput({ stdin, stdout, colour: !env.NO_COLOR, onQuit: quit.resolve })
    : createPlainOutput({
        stdout,
        log: createLog({ service: 'lab', podName: 'lab', level: logLevel, format: logFormat, stdout }),
      });
  const lab = createLab({
    replicas,
    ports,
    // The lab reads lines of level info, whatever its reader wants to see.
    env: {
      ...env,
      DRAIN_DELAY: `${drainDelayMs}ms`,
      LOG_LEVEL: ['trace', 'debug'].includes(logLevel) ? logLevel : 'info',
    },
    stopGraceMs: drainDelayMs + drainGraceMs + 10_000,
    onLine: (program, line) => output.line(program, line),
    onEvent: (program, text) => output.event(program, text),
  });

  let signals = 0;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.removeAllListeners(signal).on(signal, () => {
      signals += 1;
      if (signals === 1) return quit.resolve();
      lab.kill();
      process.exit(1);
    });
  stdout.on('error', () => quit.resolve()); // nobody reads any more
  process.on('exit', () => output.restore());

  if (live) stdout.write(`starting ${replicas} greeters and a gateway\n`);
  const started = lab.start();
  try {
    const serves = await Promise.race([started.then(() => true), quit.promise.then(() => false)]);
    if (serves) output.start(lab, urlsOf(lab));
  } catch (error) {
    output.restore();
    stderr.write(`lab: ${(error as Error).message}\n`);
    process.exit(1);
  }
  await quit.promise;
  await Promise.all([output.stop(), lab.stop(), started.catch(() => {})]);
  process.exit(0);
});

function urlsOf({ gateways }: Lab): LabUrls {
  const serving = gateways[0]?.serving;
  return {
    gateway: `http://localhost:${serving?.port}/v1/hello/world`,
    admin: `http://localhost:${serving?.adminPort}`,
  };
}
