import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import test from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import { createScreen, renderScreen, type ScreenView } from './screen.ts';

const view: ScreenView = {
  url: 'http://localhost:8080/v1/hello/world',
  adminUrl: 'http://localhost:9090',
  replicas: [
    { name: 'a', state: 'serving', share: 1 / 3 },
    { name: 'b', state: 'serving', share: 1 / 3 },
    { name: 'c', state: 'serving', share: 1 / 3 },
  ],
  sent: 1204,
  failed: 0,
  retried: 0,
  events: [],
};
const size = { columns: 80, rows: 24, colour: false };

test('shows replicas, counters and keys in three lines of 80 columns', () => {
  assert.deepEqual(renderScreen(view, size), [
    'http://localhost:8080/v1/hello/world          admin http://localhost:9090',
    'replicas  a ● 33 %   b ● 33 %   c ● 33 %      sent 1,204   failed 0   retried 0',
    '[k]ill  [f]reeze  [+] [-] scale  [r]oll  [q]uit',
  ]);
});

test('says what a replica does that does not serve', () => {
  const replicas = [
    { name: 'a', state: 'serving', share: 1 },
    { name: 'b', state: 'down', share: 0 },
    { name: 'c', state: 'frozen', share: 0 },
    { name: 'd', state: 'starting', share: 0 },
  ] as const;
  const lines = renderScreen({ ...view, replicas }, size);
  assert.equal(lines[1], 'replicas  a ● 100 %   b ✕ down   c ○ frozen   d ○ starting');
  assert.equal(lines[2], '          sent 1,204   failed 0   retried 0');
  assert.equal(lines[3], '[k]ill  thaw [f]  [+] [-] scale  [r]oll  [q]uit');
});

for (const columns of [20, 40, 80, 200]) {
  test(`keeps 26 replicas and long events within ${columns} columns`, () => {
    const replicas = Array.from(
      'abcdefghijklmnopqrstuvwxyz',
      (name) => ({ name, state: 'serving', share: 0.04 }) as const,
    );
    const lines = renderScreen({ ...view, replicas, events: ['x'.repeat(300)] }, { columns, rows: 60, colour: true });
    for (const line of lines.filter((line) => !/sent|http/.test(line)))
      assert.ok(stripVTControlCharacters(line).length <= columns, line);
    for (const { name } of replicas) assert.ok(lines.some((line) => line.includes(`${name} \u001b[32m●`)));
  });
}

test('keeps the last events where rows are few', () => {
  const events = ['one', 'two', 'three'];
  assert.deepEqual(renderScreen({ ...view, events }, { ...size, rows: 6 }).slice(3), ['', 'two', 'three']);
  assert.equal(renderScreen({ ...view, events }, { ...size, rows: 3 }).length, 3);
});

test('colours nothing unless told to', () => {
  const failing = { ...view, failed: 2 };
  assert.ok(!renderScreen(failing, size).join().includes('\u001b'));
  assert.ok(
    renderScreen(failing, { ...size, colour: true })
      .join()
      .includes('\u001b[31mfailed 2\u001b[39m'),
  );
});

test('gives the terminal back as it was, once', () => {
  const written: string[] = [];
  const raw: boolean[] = [];
  const stdout = Object.assign(new EventEmitter(), {
    columns: 80,
    rows: 24,
    write: (text: string) => written.push(text) > 0,
  });
  const stdin = Object.assign(new EventEmitter(), {
    setRawMode(mode: boolean) {
      raw.push(mode);
      return stdin;
    },
    resume: () => stdin,
    pause: () => stdin,
  });
  const keys: string[] = [];
  const screen = createScreen({
    stdin: stdin as unknown as NodeJS.ReadStream,
    stdout: stdout as unknown as NodeJS.WriteStream,
    colour: false,
    view: () => view,
    onKey: (key) => keys.push(key),
  });
  screen.stop();
  assert.deepEqual(written, []);
  screen.start();
  stdin.emit('data', Buffer.from('k\u0003'));
  screen.stop();
  screen.stop();
  assert.deepEqual(keys, ['k', '\u0003']);
  assert.deepEqual(raw, [true, false]);
  assert.equal(written[0], '\u001b[?1049h\u001b[?25l');
  assert.equal(written.at(-1), '\u001b[?25h\u001b[?1049l');
  assert.equal(stdin.listenerCount('data') + stdout.listenerCount('resize'), 0);
});
