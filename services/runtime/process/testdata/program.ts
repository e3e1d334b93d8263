// A program whose whole service is HTTP, to be started and stopped by lifecycle.test.ts.
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { createAdmin } from '../admin.ts';
import { boolean, ConfigError, port, processSettings } from '../config.ts';
import { type Program, runMain, runProgram } from '../lifecycle.ts';
import { createLog } from '../log.ts';
import { createMetrics } from '../metrics.ts';
import { startTracing } from '../tracing.ts';

const settings = {
  ...processSettings,
  port: { env: 'PORT', help: 'port of the service (0)', default: 0, schema: port() },
  stuckImport: { env: 'STUCK_IMPORT', help: 'never gets to run the program', default: false, schema: boolean() },
  stuckStart: { env: 'STUCK_START', help: 'start() never resolves', default: false, schema: boolean() },
  stuckFinish: { env: 'STUCK_FINISH', help: 'finish() never resolves', default: false, schema: boolean() },
  badDrain: { env: 'BAD_DRAIN', help: 'drain() throws', default: false, schema: boolean() },
  badPolicy: { env: 'BAD_POLICY', help: 'fails after the settings were read', default: false, schema: boolean() },
};

await runMain(process, { program: 'fixture', settings }, async (config) => {
  const { podName, logLevel: level, logFormat: format } = config;
  const log = createLog({ service: 'fixture', podName, level, format, stdout: process.stdout });
  const sdk = await startTracing({ env: process.env, service: 'fixture', podName, log });
  if (config.badPolicy) throw new ConfigError(['methodConfig[0].timeout "1" must end in s']);
  if (config.stuckImport) {
    log.info('importing');
    await sleep(60_000);
  }

  const held: ServerResponse[] = [];
  let served = 0;
  const server = createServer((request, response) => {
    served++;
    response.setHeader('connection', 'close');
    if (request.url === '/throw') setImmediate(fail);
    if (request.url === '/reject') void Promise.reject(new Error('rejected'));
    if (request.url === '/hold') {
      response.write('held ');
      held.push(response);
    } else response.end('answered');
  });
  const admin = createAdmin({
    host: config.host,
    port: config.adminPort,
    registry: createMetrics({ service: 'fixture', configHash: '' }),
    routes: {
      'POST /release': (_request, response) => {
        for (const each of held) each.end('released');
        response.end();
      },
    },
  });
  const program: Program = {
    async start() {
      if (config.stuckStart) {
        log.info({ adminPort: admin.port }, 'starting');
        await once(server, 'never-emitted');
      }
      server.listen(config.port, config.host);
      await once(server, 'listening');
      log.info({ port: (server.address() as AddressInfo).port, adminPort: admin.port }, 'serving');
    },
    drain(delayMs) {
      log.info({ delayMs }, 'drain()');
      if (config.badDrain) throw new Error('drain is broken');
    },
    async finish() {
      log.info('finish()');
      const closed = once(server, 'close');
      server.close();
      await closed;
      if (config.stuckFinish) await once(server, 'never-emitted');
    },
    force() {
      log.info('force()');
      server.closeAllConnections();
    },
    counters: () => ({ served }),
  };
  const tracing = {
    ...sdk,
    async stop() {
      const readyz = await fetch(`http://127.0.0.1:${admin.port}/readyz`, { signal: AbortSignal.timeout(500) }).catch(
        () => undefined,
      );
      log.info({ readyz: readyz?.status }, 'tracing.stop()');
      await sdk.stop();
    },
  };
  const { drainDelayMs, drainGraceMs } = config;
  await runProgram(process, { program, admin, tracing, log, drainDelayMs, drainGraceMs });
});

function fail(): never {
  throw new Error('thrown');
}
