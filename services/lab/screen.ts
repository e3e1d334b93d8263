import type { ReadStream, WriteStream } from 'node:tty';
import { stripVTControlCharacters } from 'node:util';
import type { ProgramState } from './supervisor.ts';

/** What the live screen shows. */
export interface ScreenView {
  readonly url: string;
  readonly adminUrl: string;
  /** `share`, 0 to 1, is of the calls answered of late. */
  readonly replicas: readonly { readonly name: string; readonly state: ProgramState; readonly share: number }[];
  readonly sent: number;
  readonly failed: number;
  readonly retried: number;
  /** The oldest first. */
  readonly events: readonly string[];
}

export interface Screen {
  /** Takes over the terminal, until `stop`. */
  start(): void;
  /** Gives the terminal back as it was. May be called at any time, and twice. */
  stop(): void;
}

export interface ScreenOptions {
  readonly stdin: Pick<ReadStream, 'setRawMode' | 'on' | 'off' | 'resume' | 'pause'>;
  readonly stdout: Pick<WriteStream, 'write' | 'on' | 'off' | 'columns' | 'rows'>;
  readonly colour: boolean;
  readonly view: () => ScreenView;
  /** A key that was pressed; `\u0003` is Ctrl-C. */
  readonly onKey: (key: string) => void;
}

const redrawMs = 200;
const enterScreen = '\u001b[?1049h\u001b[?25l';
const leaveScreen = '\u001b[?25h\u001b[?1049l';

/** The live screen of the lab, on the terminal's alternate screen: what was on the terminal before is there after. */
export function createScreen({ stdin, stdout, colour, view, onKey }: ScreenOptions): Screen {
  let timer: NodeJS.Timeout | undefined;

  function draw(): void {
    // A terminal that does not tell its size has 0.
    const size = { columns: stdout.columns || 80, rows: stdout.rows || 24 };
    const lines = renderScreen(view(), { ...size, colour });
    stdout.write(`\u001b[H${lines.map((line) => `${line}\u001b[K`).join('\r\n')}\u001b[J`);
  }

  function onData(data: Buffer): void {
    for (const key of data.toString()) onKey(key);
    draw();
  }

  return {
    start() {
      stdout.write(enterScreen);
      stdin.setRawMode(true);
      stdin.on('data', onData);
      stdin.resume();
      stdout.on('resize', draw);
      timer = setInterval(draw, redrawMs);
      draw();
    },
    stop() {
      if (!timer) return;
      clearInterval(timer);
      timer = undefined;
      stdout.off('resize', draw);
      stdin.off('data', onData);
      stdin.pause();
      stdin.setRawMode(false);
      stdout.write(leaveScreen);
    },
  };
}

const label = 'replicas  ';
const gap = '   ';

/** The lines of the screen, none wider than `columns` and no more than `rows`: the first events give way. */
export function renderScreen(
  view: ScreenView,
  { columns, rows, colour }: { readonly columns: number; readonly rows: number; readonly colour: boolean },
): string[] {
  const paint = colour ? paintText : (text: string) => text;
  const replicas = view.replicas.map(({ name, state, share }) => {
    if (state === 'serving') return `${name} ${paint('●', green)} ${`${Math.round(share * 100)}`.padStart(2)} %`;
    return `${name} ${state === 'down' ? paint('✕', red) : paint('○', yellow)} ${state}`;
  });
  const counters = formatCounters(view, view.failed > 0 ? (text) => paint(text, red) : undefined);
  const frozen = view.replicas.some(({ state }) => state === 'frozen');
  const keys = ['[k]ill', frozen ? 'thaw [f]' : '[f]reeze', '[+] [-] scale', '[r]oll', '[q]uit'];
  const replicaLines = flow(label, replicas, gap, columns);
  const withCounters = `${replicaLines.at(-1)}${gap}${gap}${counters}`;
  const lines = [
    ...flow('', [view.url, `admin ${view.adminUrl}`], ' '.repeat(10), columns),
    ...(width(withCounters) <= columns
      ? [...replicaLines.slice(0, -1), withCounters]
      : [...replicaLines, ' '.repeat(label.length) + counters]),
    ...flow('', keys, '  ', columns),
  ];
  const room = Math.max(0, rows - lines.length - 1);
  const events = room > 0 ? view.events.slice(-room).map((event) => event.slice(0, columns)) : [];
  return (events.length > 0 ? [...lines, '', ...events] : lines).slice(0, rows);
}

/** `sent 1,204   failed 0   retried 0` */
export function formatCounters(
  { sent, failed, retried }: Pick<ScreenView, 'sent' | 'failed' | 'retried'>,
  paintFailed = (text: string) => text,
): string {
  return [`sent ${count(sent)}`, paintFailed(`failed ${count(failed)}`), `retried ${count(retried)}`].join(gap);
}

/** Cells side by side in as many lines as they need; the lines after the first are indented by the label's width. */
function flow(label: string, cells: readonly string[], gap: string, columns: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const cell of cells) {
    if (line !== '' && label.length + width(line + gap + cell) > columns) {
      lines.push(line);
      line = cell;
    } else {
      line = line === '' ? cell : line + gap + cell;
    }
  }
  return [...lines, line].map((line, index) => (index === 0 ? label : ' '.repeat(label.length)) + line);
}

const red = 31;
const green = 32;
const yellow = 33;

function paintText(text: string, code: number): string {
  return `\u001b[${code}m${text}\u001b[39m`;
}

function width(text: string): number {
  return stripVTControlCharacters(text).length;
}

function count(value: number): string {
  return value.toLocaleString('en-US');
}
