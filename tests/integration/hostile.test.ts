import assert from 'node:assert/strict';
import { connect } from 'node:net';
import test from 'node:test';
import { runProgramFile } from '../harness/command.ts';
import { guarantee } from '../harness/guarantee.ts';
import { exchangeText, hostileRequests, readReply } from '../harness/hostile-requests.ts';
import { type LabFixture, startLab } from '../harness/lab-fixture.ts';
import { createBookkeeper } from '../harness/ledger.ts';
import { sumOfMetric } from '../harness/metrics.ts';

const startedName = 'grpc_server_call_started_total';

/** Counts the calls that reach the replica from now on. */
async function countCalls(lab: LabFixture): Promise<() => Promise<number>> {
  const calls = () => sumOfMetric(lab.adminPort('a'), startedName);
  const before = await calls();
  return async () => (await calls()) - before;
}

test('each hostile request gets a clear answer', async (t) => {
  const lab = await startLab(t, { replicas: 1 });
  for (const { name, text, status: expected } of hostileRequests) {
    await t.test(`${expected} for ${name}`, async () => {
      const { status, body } = readReply(await exchangeText(lab.gatewayPort(), text));
      assert.equal(status, expected, body);
      if (status === 'closed') return;
      const json = JSON.parse(body) as { code: number; message: string };
      assert.ok(json.code > 0 && json.code <= 16, body);
      assert.ok(json.message.length > 0, body);
      assert.doesNotMatch(body, /node_modules|\.ts\b|undefined|\[object|Error:/, 'the words of the inside');
    });
  }
});

guarantee('a malformed request never reaches a replica', {
  on: { requests: 'malformed' },
  control: { requests: 'well-formed' },
  async scenario({ requests }, t) {
    const lab = await startLab(t, { replicas: 1 });
    const reached = await countCalls(lab);
    const books = createBookkeeper();
    let answered = 0;
    for (const { text, wellFormed } of hostileRequests) {
      const finish = books.begin();
      const reply = readReply(await exchangeText(lab.gatewayPort(), requests === 'malformed' ? text : wellFormed));
      finish({ code: reply.status === 200 ? 'OK' : `HTTP ${reply.status}`, servedBy: 'a' });
      if (reply.status !== 'closed') answered++;
    }
    return { ...books.close(), figures: { answered, reachedTheReplica: await reached() } };
  },
  valid: ({ sent, figures }) => sent === hostileRequests.length && figures.answered >= sent - 1,
  holds: ({ ok, figures }) => ok === 0 && figures.reachedTheReplica === 0,
});

/** Configurations by what is wrong with them, each with the one that would be right. */
const configurations: readonly [malformed: readonly string[], wellFormed: readonly string[]][] = [
  [
    ['--port', '80800'],
    ['--port', '8080'],
  ],
  [
    ['--drain-delay', '5 minutes'],
    ['--drain-delay', '5s'],
  ],
  [
    ['--drain-dely', '5s'],
    ['--drain-delay', '5s'],
  ],
  [
    ['--target', 'localhost:50051'],
    ['--target', 'dns:///localhost:50051'],
  ],
  [
    ['--descriptors', 'README.md'],
    ['--descriptors', 'proto/descriptors.binpb'],
  ],
  [
    ['--config', 'package.json'],
    ['--config', 'docs/gateway.example.yaml'],
  ],
  [
    ['--service-config', '{"loadBalancingConfig":[{"ring_hash":{}}]}'],
    ['--service-config', '{}'],
  ],
  [
    ['--service-config', '{"methodConfig":[{"name":[{}],"timeout":"1 s"}]}'],
    ['--service-config', '{"methodConfig":[{"name":[{}],"timeout":"1s"}]}'],
  ],
  [
    ['--service-config', '{"__proto__":{"retryThrottling":{}}}'],
    ['--service-config', '{}'],
  ],
];

guarantee('a malformed configuration never starts', {
  on: { configuration: 'malformed' },
  control: { configuration: 'well-formed' },
  async scenario({ configuration }) {
    const books = createBookkeeper();
    let problems = 0;
    for (const [malformed, wellFormed] of configurations) {
      const finish = books.begin();
      const args = configuration === 'malformed' ? malformed : wellFormed;
      // All that a start does before it listens.
      const { code, stderr } = await runProgramFile('services/gateway/main.ts', [...args, '--check-config']);
      finish({ code: code === 0 ? 'OK' : `exit code ${code}`, servedBy: 'gateway' });
      if (/invalid configuration:\n {2}\S/.test(stderr)) problems++;
    }
    return { ...books.close(), figures: { namedProblems: problems } };
  },
  valid: ({ sent, ok, failed }) => sent === configurations.length && ok + failed === sent,
  holds: ({ ok, codes, sent, figures }) =>
    ok === 0 && codes.get('exit code 1') === sent && figures.namedProblems === sent,
});

test('slow requests get 408 and their connections are closed', async (t) => {
  const lab = await startLab(t, { replicas: 1, gatewayEnv: { REQUEST_TIMEOUT: '500ms' } });
  const reached = await countCalls(lab);
  const head = 'POST /v1/hello HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 12\r\n';
  const slow: [name: string, text: string][] = [
    ['a request line', 'GET /v1/he'],
    ['a head', head],
    ['a body', `${head}\r\n{"name"`],
    ['chunks', `${head.replace('content-length: 12', 'transfer-encoding: chunked')}\r\nc\r\n{"name"`],
  ];
  await Promise.all(
    slow.map(([name, text]) =>
      t.test(`for ${name}`, async () => {
        const { status, body } = readReply(await exchangeText(lab.gatewayPort(), text));
        assert.deepEqual([status, JSON.parse(body)], [408, { code: 4, message: 'the request came too slowly' }]);
      }),
    ),
  );
  await t.test('for one that comes a byte at a time', async () => {
    const socket = connect(lab.gatewayPort(), '127.0.0.1');
    const timer = setInterval(() => socket.write('a'), 50);
    socket.write('GET /v1/hello/x HTTP/1.1\r\nhost: x\r\na: ');
    let received = '';
    socket.setEncoding('latin1').on('data', (chunk: string) => (received += chunk));
    socket.on('error', () => {});
    await new Promise((resolve) => socket.once('close', resolve)); // `once()` would reject for the error.
    clearInterval(timer);
    assert.equal(readReply(received).status, 408);
  });
  assert.equal(await reached(), 0);
});

test('hostile requests leave nothing behind in memory', async (t) => {
  const lab = await startLab(t, { replicas: 1 });
  const [gateway] = lab.lab.gateways;
  const adminPort = gateway?.serving?.adminPort;
  assert.ok(adminPort);
  const residentBytes = () => sumOfMetric(adminPort, 'process_resident_memory_bytes');
  const rounds = async (count: number) => {
    for (let round = 0; round < count; round++) {
      await Promise.all(hostileRequests.map(({ text }) => exchangeText(lab.gatewayPort(), text)));
    }
  };
  await rounds(4);
  const before = await residentBytes();
  await rounds(8);
  const grownMiB = ((await residentBytes()) - before) / 2 ** 20;
  t.diagnostic(`${8 * hostileRequests.length} requests: resident memory grew by ${grownMiB.toFixed(1)} MiB`);
  assert.ok(grownMiB < 64, `${grownMiB} MiB`);
  assert.equal(readReply(await exchangeText(lab.gatewayPort(), hostileRequests[0]?.wellFormed ?? '')).status, 200);
});
