import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { projectFile, run, skipWithout } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';

/** What the page has, in its order: files to write, commands to run, and what the command before has to print. */
type Step =
  | { readonly type: 'file'; readonly path: string; readonly content: string }
  | { readonly type: 'command'; readonly command: string }
  | { readonly type: 'output'; readonly text: string };

function readSteps(markdown: string): Step[] {
  const blocks = markdown.matchAll(/(?:`([\w./-]+)`:\n\n)?^```(\w+)\n([^]*?)^```$/gm);
  return [...blocks].map(([, path, language, content = '']): Step => {
    if (path !== undefined) return { type: 'file', path, content };
    return language === 'sh' ? { type: 'command', command: content.trim() } : { type: 'output', text: content.trim() };
  });
}

/** Ports that are free now. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, 'localhost');
      await once(server, 'listening');
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  for (const server of servers) server.close();
  return ports;
}

/** Starts a program that runs until the test ends, and waits until all its ports take connections. */
async function startProgram(t: TestContext, command: string, cwd: string, ports: readonly number[]): Promise<void> {
  const env = { PATH: process.env.PATH, TANDEM: projectFile('.').replace(/\/$/, ''), DRAIN_DELAY: '0s' };
  const child = spawn('sh', ['-c', `exec ${command}`], { cwd, env, stdio: ['ignore', 'ignore', 'inherit'] });
  const exited = once(child, 'exit');
  t.after(async () => {
    child.kill('SIGTERM');
    await exited;
  });
  for (const port of ports) {
    await eventually(`${command} serves`, async () => {
      assert.equal(child.exitCode, null, `${command} ended`);
      const socket = connect(port, 'localhost');
      const isOpen = await Promise.race([
        once(socket, 'connect').then(() => true),
        once(socket, 'error')
          .catch(() => undefined)
          .then(() => false),
      ]).catch(() => false);
      socket.destroy();
      return isOpen;
    });
  }
}

test('a service of one’s own is served as docs/bring-your-own.md says', async (t) => {
  if (await skipWithout(t, 'curl', ['--version'])) return;
  const directory = mkdtempSync(join(tmpdir(), 'tandem-bring-your-own-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const [server = 0, gateway = 0, admin = 0] = await freePorts(3);
  const markdown = readFileSync(projectFile('docs/bring-your-own.md'), 'utf8')
    .replaceAll('50061', String(server))
    .replaceAll('8090', String(gateway))
    .replaceAll('9190', String(admin));
  const env = { TANDEM: projectFile('.').replace(/\/$/, '') };
  const cwd = join(directory, 'shop');
  let printed = '';
  let commands = 0;

  for (const step of readSteps(markdown)) {
    if (step.type === 'file') {
      mkdirSync(dirname(join(cwd, step.path)), { recursive: true });
      writeFileSync(join(cwd, step.path), step.content);
    } else if (step.type === 'output') {
      assert.equal(printed.trim(), step.text);
    } else if (step.command.startsWith('mkdir')) {
      mkdirSync(cwd);
      symlinkSync(projectFile('node_modules'), join(cwd, 'node_modules')); // what npm install would bring
    } else if (step.command.startsWith('node ')) {
      await startProgram(t, step.command, cwd, step.command.includes('gateway') ? [gateway, admin] : [server]);
    } else {
      commands++;
      const { code, stdout, stderr } = await run('sh', ['-ec', step.command], { cwd, env });
      assert.equal(code, 0, `${step.command}\n${stderr}`);
      printed = stdout;
    }
  }
  assert.equal(commands, 8);
});
