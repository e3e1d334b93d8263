import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { type Logger, pino } from 'pino';
import { Counter, Registry } from 'prom-client';
import { type Admin, type AdminRoutes, createAdmin, readJsonBody } from './admin.ts';

describe('admin', { concurrency: true, timeout: 30_000 }, () => {
  it('is live at once, and ready when it is told so', async (t) => {
    const { admin, url } = await startAdmin(t);
    assert.deepEqual(await get(`${url}/livez`), [200, 'live\n']);
    assert.deepEqual(await get(`${url}/readyz`), [503, 'starting\n']);
    admin.setReady(true);
    assert.deepEqual(await get(`${url}/readyz?verbose`), [200, 'ready\n']);
    admin.setReady(false, 'draining');
    assert.deepEqual(await get(`${url}/readyz`), [503, 'draining\n']);
  });

  it('is not live when the program says so', async (t) => {
    let live = true;
    const { url } = await startAdmin(t, { live: () => live });
    assert.deepEqual(await get(`${url}/livez`), [200, 'live\n']);
    live = false;
    assert.deepEqual(await get(`${url}/livez`), [503, 'not live\n']);
  });

  it('gives the metrics of the registry with their content type', async (t) => {
    const registry = new Registry();
    new Counter({ name: 'calls', help: 'Calls.', registers: [registry] }).inc(3);
    const { url } = await startAdmin(t, { registry });
    const response = await fetch(`${url}/metrics`);
    assert.equal(response.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
    assert.match(await response.text(), /^calls 3$/m);
  });

  it('gives OpenMetrics to a scraper that asks for it', async (t) => {
    const { url } = await startAdmin(t);
    const accept = 'application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1';
    const response = await fetch(`${url}/metrics`, { headers: { accept } });
    assert.equal(response.headers.get('content-type'), 'application/openmetrics-text; version=1.0.0; charset=utf-8');
    assert.match(await response.text(), /^# EOF\n$/m);
  });

  it('shows and changes the level of the log', async (t) => {
    const log = pino({ level: 'info' }, { write() {} });
    const { url } = await startAdmin(t, { log });
    const put = async (body: string) => {
      const response = await fetch(`${url}/loglevel`, {
        method: 'PUT',
        headers: { 'content-type': 'application/json' },
        body,
      });
      return [response.status, await response.text()];
    };
    assert.deepEqual(await get(`${url}/loglevel`), [200, '{"level":"info"}\n']);
    assert.deepEqual(await put('{"level": "debug"}'), [200, '{"level":"debug"}\n']);
    assert.equal(log.level, 'debug');
    for (const body of ['{"level": "loud"}', '{"level": ["warn"]}', '{}', 'null', '"warn"']) {
      assert.deepEqual(await put(body), [400, 'level must be one of trace, debug, info, warn, error, fatal\n']);
    }
    assert.equal(log.level, 'debug');
  });

  it('answers HEAD as GET without the body', async (t) => {
    const { url } = await startAdmin(t);
    const response = await fetch(`${url}/livez`, { method: 'HEAD' });
    assert.equal(response.status, 200);
    assert.equal(await response.text(), '');
  });

  it('refuses unknown paths with 404 and other methods with 405 and what is allowed', async (t) => {
    const { url } = await startAdmin(t, { routes: { 'PUT /livez': () => {} } });
    assert.deepEqual(await get(`${url}/nothing`), [404, 'not found\n']);
    assert.deepEqual(await get(`${url}/livez/`), [404, 'not found\n']);
    const response = await fetch(`${url}/livez`, { method: 'DELETE' });
    assert.equal(response.status, 405);
    assert.equal(response.headers.get('allow'), 'GET, PUT');
    assert.equal(await response.text(), 'method not allowed\n');
  });

  it('answers 500 for a handler that throws or rejects, and goes on', async (t) => {
    const { url } = await startAdmin(t, {
      routes: {
        'GET /throws': () => {
          throw new Error('secret');
        },
        'GET /rejects': async () => {
          throw new Error('secret');
        },
      },
    });
    assert.deepEqual(await get(`${url}/throws`), [500, 'internal error\n']);
    assert.deepEqual(await get(`${url}/rejects`), [500, 'internal error\n']);
    assert.deepEqual(await get(`${url}/livez`), [200, 'live\n']);
  });

  it('breaks off a reply whose handler throws in the middle', async (t) => {
    const { url } = await startAdmin(t, {
      routes: {
        'GET /half': (_request, response) => {
          response.write('half');
          throw new Error('secret');
        },
      },
    });
    await assert.rejects(get(`${url}/half`));
    assert.deepEqual(await get(`${url}/livez`), [200, 'live\n']);
  });

  it('rejects start() with the error of the bind', async (t) => {
    const { admin } = await startAdmin(t);
    const other = createAdmin({ host: '127.0.0.1', port: admin.port, registry: new Registry() });
    await assert.rejects(other.start(), { code: 'EADDRINUSE', port: admin.port });
    await other.stop();
  });

  it('closes its port on stop(), and after a second whatever reply is still in flight', async (t) => {
    const { admin, url } = await startAdmin(t, {
      routes: { 'GET /endless': (_request, response) => void response.write('…') },
    });
    await get(`${url}/livez`);
    const endless = await fetch(`${url}/endless`);
    const cut = assert.rejects(endless.text());
    await admin.stop();
    await cut;
    await assert.rejects(fetch(`${url}/livez`));
    await admin.stop();
  });

  it('drops a connection that does not get on with its request', async (t) => {
    const { admin } = await startAdmin(t);
    const socket = connect(admin.port, '127.0.0.1').setEncoding('utf8');
    t.after(() => socket.destroy());
    socket.write('GET /livez HTTP/1.1\r\nhost: ');
    const [head] = (await once(socket, 'data')) as [string];
    assert.match(head, /^HTTP\/1\.1 408 /);
  });
});

describe('readJsonBody', { timeout: 30_000 }, () => {
  const routes: AdminRoutes = {
    'POST /echo': async (request, response) => {
      response.end(JSON.stringify(await readJsonBody(request)));
    },
  };
  const cases: [string, body: string, contentType: string, status: number, answer: string][] = [
    ['gives the value', '{"a": [1]}', 'application/json; charset=utf-8', 200, '{"a":[1]}'],
    ['refuses text that is no JSON', '{', 'application/json', 400, 'body must be JSON\n'],
    ['refuses an empty body', '', 'application/json', 400, 'body must be JSON\n'],
    // Without this any web page that an operator looks at could post here, since a form needs no permission.
    ['refuses another content type', '{}', 'text/plain', 415, 'content-type must be application/json\n'],
    ['takes 64 KiB', `"${'x'.repeat(65_534)}"`, 'application/json', 200, `"${'x'.repeat(65_534)}"`],
    ['refuses a byte more', `"${'x'.repeat(65_535)}"`, 'application/json', 413, 'body must be <= 65536 bytes\n'],
  ];
  for (const [behaviour, body, contentType, status, answer] of cases) {
    it(behaviour, async (t) => {
      const { url } = await startAdmin(t, { routes });
      const response = await fetch(`${url}/echo`, { method: 'POST', headers: { 'content-type': contentType }, body });
      assert.deepEqual([response.status, await response.text()], [status, answer]);
    });
  }
});

async function startAdmin(
  t: TestContext,
  options: { registry?: Registry; live?: () => boolean; routes?: AdminRoutes; log?: Logger } = {},
): Promise<{ admin: Admin; url: string }> {
  const admin = createAdmin({ host: '127.0.0.1', port: 0, registry: new Registry(), ...options });
  const port = await admin.start();
  assert.equal(admin.port, port);
  t.after(() => admin.stop());
  return { admin, url: `http://127.0.0.1:${port}` };
}

async function get(url: string): Promise<[status: number, body: string]> {
  const response = await fetch(url);
  return [response.status, await response.text()];
}
