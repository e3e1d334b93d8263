import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('testdata/program.ts', import.meta.url));
const deadlineMs = 20_000;

describe('runProgram', { concurrency: 4, timeout: 60_000 }, () => {
  it('stops in order after SIGTERM: drains, serves on, finishes what is in flight, closes the admin port last', async (t) => {
    const child = start(t, { DRAIN_DELAY: '1s' });
    const { service, admin } = await child.serving();
    assert.deepEqual(await get(`${admin}/readyz`), [200, 'ready\n']);
    const held = await fetch(`${service}/hold`);

    child.kill('SIGTERM');
    await child.line('drain()');
    assert.deepEqual(await get(`${admin}/readyz`), [503, 'draining\n']);
    assert.deepEqual(await get(`${admin}/livez`), [200, 'live\n']);
    assert.deepEqual(await get(`${service}/`), [200, 'answered'], 'it serves on during the delay');

    await child.line('finish()');
    await refused(service);
    assert.deepEqual(await get(`${admin}/readyz`), [503, 'draining\n']);
    await fetch(`${admin}/release`, { method: 'POST' });
    assert.equal(await held.text(), 'held released');

    assert.equal(await child.exitCode, 0);
    assert.deepEqual(child.messages(), ['serving', 'stopping', 'drain()', 'finish()', 'stopped', 'tracing.stop()']);
    assert.equal(child.find('drain()')?.delayMs, 1_000);
    assert.equal(child.find('stopped')?.served, 2);
    assert.equal(child.find('tracing.stop()')?.readyz, 503, 'the admin port outlives the tracing');
    assert.ok(child.msBetween('drain()', 'finish()') >= 990);
  });

  it('exits at once with 1 on a second signal', async (t) => {
    const child = start(t, { DRAIN_DELAY: '60s' });
    await child.serving();
    child.kill('SIGTERM');
    await child.line('drain()');
    child.kill('SIGINT');
    assert.equal(await child.exitCode, 1);
    assert.deepEqual(child.messages(), ['serving', 'stopping', 'drain()', 'second signal: exiting at once']);
  });

  it('cuts what is left once the grace is over', async (t) => {
    const child = start(t, { DRAIN_DELAY: '0', DRAIN_GRACE: '300ms' });
    const { service } = await child.serving();
    const held = await fetch(`${service}/hold`);
    child.kill('SIGINT');
    await assert.rejects(held.text());
    assert.equal(await child.exitCode, 0);
    assert.ok(child.find('force()'));
    assert.ok(child.find('stopped'));
  });

  it('goes on without the calls that even a cut does not end', async (t) => {
    const child = start(t, { DRAIN_DELAY: '0', DRAIN_GRACE: '0', STUCK_FINISH: 'true' });
    await child.serving();
    child.kill('SIGTERM');
    assert.equal(await child.exitCode, 1);
    assert.match(JSON.stringify(child.find('could not stop in order')), /calls did not end after they were cut/);
    assert.ok(child.find('stopped'));
  });

  it('goes through the rest of the sequence when one step of it throws', async (t) => {
    const child = start(t, { DRAIN_DELAY: '0', BAD_DRAIN: 'true' });
    await child.serving();
    child.kill('SIGTERM');
    assert.equal(await child.exitCode, 1);
    assert.match(JSON.stringify(child.find('could not stop in order')), /drain is broken/);
    assert.ok(child.find('finish()'));
    assert.ok(child.find('tracing.stop()'));
  });

  for (const [path, message] of [
    ['throw', 'thrown'],
    ['reject', 'rejected'],
  ]) {
    it(`stops without the delay, but finishes what is in flight, after an error that nobody caught: ${path}`, async (t) => {
      const child = start(t, { DRAIN_DELAY: '60s' });
      const { service, admin } = await child.serving();
      const held = await fetch(`${service}/hold`);
      await get(`${service}/${path}`);
      await child.line('finish()');
      await fetch(`${admin}/release`, { method: 'POST' });
      assert.equal(await held.text(), 'held released');
      assert.equal(await child.exitCode, 1);
      const fatal = child.find('uncaught exception: stopping');
      assert.partialDeepStrictEqual(fatal, { level: 'fatal', err: { message } });
      assert.equal(child.find('drain()')?.delayMs, 0);
      assert.ok(child.find('stopped'));
    });
  }

  it('cuts a drain delay short when an error comes that nobody caught', async (t) => {
    const child = start(t, { DRAIN_DELAY: '60s' });
    const { service } = await child.serving();
    child.kill('SIGTERM');
    await child.line('drain()');
    await get(`${service}/throw`);
    assert.equal(await child.exitCode, 1);
    assert.ok(child.find('stopped'));
  });

  for (const variable of ['PORT', 'ADMIN_PORT']) {
    it(`names the port and the variable when the port of ${variable} is taken`, async (t) => {
      const other = createServer().listen(0, '127.0.0.1');
      t.after(() => other.close());
      await once(other, 'listening');
      const { port } = other.address() as AddressInfo;
      const child = start(t, { [variable]: String(port) });
      assert.equal(await child.exitCode, 1);
      const message = `cannot start: port ${port} is taken; set ${variable} to a free one`;
      assert.deepEqual(child.messages(), [message, 'tracing.stop()']);
      assert.equal(child.find(message)?.level, 'fatal');
    });
  }

  it('names HOST when the address is not of this machine', async (t) => {
    const child = start(t, { HOST: '192.0.2.1' });
    assert.equal(await child.exitCode, 1);
    assert.match(
      String(child.messages()[0]),
      /^cannot start: HOST must be an address of this machine: .* 192\.0\.2\.1$/,
    );
  });

  it('stops in order on a SIGTERM during the start, without a delay', async (t) => {
    const child = start(t, { STUCK_START: 'true', DRAIN_DELAY: '60s' });
    const { adminPort } = await child.line('starting');
    assert.deepEqual(await get(`http://127.0.0.1:${adminPort}/livez`), [200, 'live\n']);
    assert.deepEqual(await get(`http://127.0.0.1:${adminPort}/readyz`), [503, 'starting\n']);
    child.kill('SIGTERM');
    assert.equal(await child.exitCode, 0);
    assert.deepEqual(child.messages(), ['starting', 'stopping', 'drain()', 'finish()', 'stopped', 'tracing.stop()']);
  });
});

describe('runMain', { concurrency: 4, timeout: 60_000 }, () => {
  it('exits with 0 on a SIGTERM before there is anything to stop', async (t) => {
    const child = start(t, { STUCK_IMPORT: 'true' });
    await child.line('importing');
    child.kill('SIGTERM');
    assert.equal(await child.exitCode, 0);
  });

  it('prints every problem of the configuration and exits with 1', async (t) => {
    const child = start(t, { PORT: 'abc', DRAIN_DELAY: '90s' });
    assert.equal(await child.exitCode, 1);
    assert.equal(
      child.stderr(),
      'fixture: invalid configuration:\n' +
        '  DRAIN_DELAY 90s must be <= 60s\n' +
        '  PORT "abc" must be an integer from 0 to 65535\n',
    );
  });

  it('does the same for a ConfigError thrown later', async (t) => {
    const child = start(t, { BAD_POLICY: 'true' });
    assert.equal(await child.exitCode, 1);
    assert.equal(child.stderr(), 'fixture: invalid configuration:\n  methodConfig[0].timeout "1" must end in s\n');
  });

  it('prints the settings for --help and exits with 0', async (t) => {
    const child = start(t, { PORT: 'abc' }, ['--help']);
    assert.equal(await child.exitCode, 0);
    assert.match(child.stdout(), /^usage: fixture /);
    assert.match(child.stdout(), /--drain-delay +DRAIN_DELAY /);
  });
});

type Line = Readonly<Record<string, unknown>>;

/** Runs the fixture on loopback, on free ports, until the test ends at the latest. */
function start(t: TestContext, env: Record<string, string>, argv: readonly string[] = []) {
  const child = spawn(process.execPath, [program, ...argv], {
    env: { HOST: '127.0.0.1', PORT: '0', ADMIN_PORT: '0', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exitCode = once(child, 'close').then(([code]) => code as number | null);
  t.after(async () => {
    child.kill('SIGKILL');
    await exitCode;
  });
  const output: string[] = [];
  const errors: string[] = [];
  createInterface(child.stdout).on('line', (line) => output.push(line));
  child.stderr.setEncoding('utf8').on('data', (text: string) => errors.push(text));

  const lines = () => output.map((line) => JSON.parse(line) as Line);
  const find = (message: string) => lines().find(({ msg }) => msg === message);
  const line = (message: string) => poll(() => find(message), `log line "${message}"; so far:\n${output.join('\n')}`);
  const timeOf = (message: string) => Date.parse(String(find(message)?.time));
  return {
    exitCode,
    line,
    find,
    kill: (signal: NodeJS.Signals) => child.kill(signal),
    messages: () => lines().map(({ msg }) => msg),
    msBetween: (first: string, second: string) => timeOf(second) - timeOf(first),
    stdout: () => output.join('\n'),
    stderr: () => errors.join(''),
    async serving() {
      const { port, adminPort } = await line('serving');
      const admin = `http://127.0.0.1:${adminPort}`;
      await poll(async () => ((await get(`${admin}/readyz`))[0] === 200 ? true : undefined), 'readiness');
      return { service: `http://127.0.0.1:${port}`, admin };
    },
  };
}

async function get(url: string): Promise<[status: number, body: string]> {
  const response = await fetch(url);
  return [response.status, await response.text()];
}

async function refused(url: string): Promise<void> {
  await poll(
    () =>
      fetch(url).then(
        () => undefined,
        (error: Error) => error,
      ),
    `${url} to refuse`,
  );
}

async function poll<T>(probe: () => T | undefined | Promise<T | undefined>, what: string): Promise<T> {
  const endMs = performance.now() + deadlineMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined) return found;
    if (performance.now() > endMs) assert.fail(`waited ${deadlineMs} ms in vain for ${what}`);
    await sleep(10);
  }
}
