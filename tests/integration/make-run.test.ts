import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { get } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { text } from 'node:stream/consumers';
import test, { type TestContext } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import { projectFile, run, runProgramFile, skipWithout } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';
import { isRunning } from '../harness/lab-fixture.ts';

const main = projectFile('services/lab/main.ts');

interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly command: string;
}

interface RunningLab {
  /** Waits until what it wrote so far matches. */
  says(pattern: RegExp): Promise<RegExpExecArray>;
  /** All that it wrote so far, without colours and such. */
  output(): string;
  write(keys: string): void;
  /** Its own process and all that it started. */
  processes(): Promise<Process[]>;
  /** Resolves with its exit code, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>;
}

/** Runs a command that is the lab, or ends up in it, on free ports. */
function startCommand(t: TestContext, file: string, args: readonly string[], env = {}): RunningLab {
  const { PATH, HOME } = process.env;
  const ports = { PORT: '0', ADMIN_PORT: '0', GREETER_PORT: '0' };
  const child = spawn(file, args, { env: { PATH, HOME, ...ports, ...env }, stdio: ['pipe', 'pipe', 'inherit'] });
  const root = child.pid ?? 0;
  let written = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (written += chunk));
  child.stdin.on('error', () => {}); // it has gone
  const output = () => stripVTControlCharacters(written);
  const ended = once(child, 'close').then(([code, signal]) => (code ?? signal) as number | NodeJS.Signals);

  async function processes(): Promise<Process[]> {
    const all = (await run('ps', ['-eo', 'pid=,ppid=,args='])).stdout.split('\n').map((line) => {
      const [, pid, parent, command = ''] = /^ *(\d+) +(\d+) (.*)$/.exec(line) ?? [];
      return { pid: Number(pid), parent: Number(parent), command };
    });
    const found = all.filter(({ pid }) => pid === root);
    for (const { pid } of found) found.push(...all.filter(({ parent }) => parent === pid));
    return found;
  }

  t.after(async () => {
    for (const { pid } of await processes()) if (isRunning(pid)) process.kill(pid, 'SIGKILL');
  });
  return {
    says(pattern) {
      const what = () => `${pattern} in ${JSON.stringify(output().slice(-2_000))}`;
      return eventually(what, () => pattern.exec(output()), { timeoutMs: 20_000 });
    },
    output,
    write: (keys) => child.stdin.write(keys),
    processes,
    ended,
  };
}

function startLab(t: TestContext, env = {}): RunningLab {
  return startCommand(t, process.execPath, [main], env);
}

async function gatewayUrl(lab: RunningLab): Promise<string> {
  return (await lab.says(/^(http:\S+\/v1\/hello\/world) +admin http:\S+:\d+$/m))[1] as string;
}

async function nothingIsLeft(processes: readonly Process[]): Promise<void> {
  await eventually('no process is left', () => !processes.some(({ pid }) => isRunning(pid)));
}

function fetchText(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    get(url, { agent: false }, (response) => resolve(text(response))).once('error', reject);
  });
}

test('starts, answers, restarts what was killed, and leaves nothing after Ctrl-C', async (t) => {
  const lab = startLab(t, { REPLICAS: '2' });
  const url = await gatewayUrl(lab);
  assert.equal(await fetchText(url), '{"message":"Hello world"}');

  const processes = await lab.processes();
  const programs = processes.filter(({ command }) => /services\/(greeter|gateway)\/main\.ts$/.test(command));
  assert.equal(programs.length, 3);
  const greeter = programs.find(({ command }) => command.includes('greeter'));
  process.kill(greeter?.pid ?? 0, 'SIGKILL');
  await lab.says(/"[ab] was killed, restarting in 0\.2 s"/);
  await lab.says(/"[ab] restarted after \d\.\d s"/);
  assert.equal(await fetchText(url), '{"message":"Hello world"}');

  const [self] = processes;
  const atLast = [...processes, ...(await lab.processes())];
  process.kill(self?.pid ?? 0, 'SIGINT');
  assert.equal(await lab.ended, 0);
  await nothingIsLeft(atLast);
});

test('ends at once at a second Ctrl-C', async (t) => {
  const lab = startLab(t, { REPLICAS: '1', DRAIN_DELAY: '30s' });
  await gatewayUrl(lab);
  const processes = await lab.processes();
  const [self] = processes;
  process.kill(self?.pid ?? 0, 'SIGINT');
  await lab.says(/"signal":"SIGTERM","msg":"stopping"/);
  process.kill(self?.pid ?? 0, 'SIGINT');
  assert.equal(await lab.ended, 1);
  await nothingIsLeft(processes);
});

test('leaves no program when it is killed itself', async (t) => {
  const lab = startLab(t, { REPLICAS: '1' });
  await gatewayUrl(lab);
  const processes = await lab.processes();
  const [self] = processes;
  process.kill(self?.pid ?? 0, 'SIGKILL');
  assert.equal(await lab.ended, 'SIGKILL');
  await nothingIsLeft(processes);
});

test('names a busy port, who wanted it and what to change, before anything starts', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const port = `${(server.address() as AddressInfo).port}`;
  const env = { PORT: port, ADMIN_PORT: '0', GREETER_PORT: '0' };
  assert.deepEqual(await runProgramFile('services/lab/main.ts', [], { env }), {
    code: 1,
    signal: null,
    stdout: '',
    stderr: `lab: invalid configuration:\n  port ${port} for the gateway is busy: free it or set PORT\n`,
  });
});

test('shows the live screen on a terminal, obeys its keys, and gives the terminal back', async (t) => {
  if (process.platform !== 'linux') return t.skip('script of util-linux gives the terminal');
  if (await skipWithout(t, 'script', ['--version'])) return;
  // The terminal's settings and name come first; the lab is what the shell becomes.
  const command = `tty; stty cols 80 rows 24; stty -a | grep -o -- '-\\?icanon'; '${process.execPath}' ${main}; echo "exit $?"; stty -a | grep -o -- '-\\?icanon'`;
  const lab = startCommand(t, 'script', ['-qfec', command, '/dev/null'], {
    REPLICAS: '2',
    NO_COLOR: '1',
    TERM: 'xterm',
  });
  const [terminal = ''] = await lab.says(/\/dev\/\S+/);
  await lab.says(/^replicas  a ● 50 %   b ● 50 %      sent \d+   failed 0   retried 0$/m);
  await lab.says(/^\[k\]ill  \[f\]reeze  \[\+\] \[-\] scale  \[r\]oll  \[q\]uit$/m);

  await run('stty', ['-F', terminal, 'cols', '40']);
  await lab.says(/^replicas  a ● \d+ %   b ● \d+ %\r*\n {10}sent \d+   failed 0   retried \d+$/m);
  await run('stty', ['-F', terminal, 'cols', '80']);

  lab.write('k');
  await lab.says(/a was killed, restarting in 0\.2 s/);
  await lab.says(/a restarted after \d\.\d s/);
  lab.write('+');
  await lab.says(/scaled to 3/);
  lab.write('-r');
  await lab.says(/rolled\b/);
  assert.doesNotMatch(lab.output(), /failed [1-9]/);
  lab.write('f');
  await lab.says(/ ○ frozen/);
  lab.write('f');
  await lab.says(/ thawed/);
  const processes = await lab.processes();
  lab.write('q');
  await lab.says(/sent \d+   failed \d+   retried \d+\s+exit 0\s+icanon\s*$/);
  assert.equal(await lab.ended, 0);
  await nothingIsLeft(processes);
});
