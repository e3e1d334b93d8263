import type { ReadStream, WriteStream } from 'node:tty';
import { maxReplicas } from './config.ts';
import type { Lab } from './lab.ts';
import { isAtLeast, parseLogLine } from './log-line.ts';
import type { LabUrls, Output } from './output.ts';
import { readRetried } from './retried.ts';
import { createScreen, formatCounters, type Screen } from './screen.ts';
import { createTrickle } from './trickle.ts';

export interface LiveOutputOptions {
  readonly stdin: Pick<ReadStream, 'setRawMode' | 'on' | 'off' | 'resume' | 'pause'>;
  readonly stdout: Pick<WriteStream, 'write' | 'on' | 'off' | 'columns' | 'rows'>;
  readonly colour: boolean;
  /** Runs when `q` or Ctrl-C was pressed. */
  readonly onQuit: () => void;
}

const callsPerS = 15;
const retriedPollMs = 1_000;
const keptEvents = 6;

/** For a terminal: the live screen, the keys, and a few calls a second of its own that show what becomes of them. */
export function createLiveOutput({ stdin, stdout, colour, onQuit }: LiveOutputOptions): Output {
  const events: string[] = [];
  let screen: Screen | undefined;
  let stop: (() => Promise<void>) | undefined;

  function event(text: string): void {
    events.push(`${new Date().toTimeString().slice(0, 8)}  ${text}`);
    if (events.length > keptEvents) events.shift();
  }

  function start(lab: Lab, urls: LabUrls): void {
    const trickle = createTrickle({ url: urls.gateway, callsPerS });
    const press = createKeys(lab, { event, onQuit });
    let retried = 0;
    const timer = setInterval(() => {
      const adminPort = lab.gateways[0]?.serving?.adminPort;
      if (adminPort !== undefined)
        readRetried(adminPort).then(
          (value) => (retried = value),
          () => {},
        ); // it is restarting
    }, retriedPollMs);
    const shown = createScreen({
      stdin,
      stdout,
      colour,
      onKey: press,
      view() {
        const shares = trickle.shares();
        return {
          url: urls.gateway,
          adminUrl: urls.admin,
          replicas: lab.replicas.map(({ name, state }) => ({ name, state, share: shares.get(name) ?? 0 })),
          sent: trickle.sent,
          failed: trickle.failed,
          retried,
          events,
        };
      },
    });
    screen = shown;
    stop = async () => {
      clearInterval(timer);
      shown.stop();
      await trickle.stop();
      stdout.write(`${formatCounters({ sent: trickle.sent, failed: trickle.failed, retried })}\n`);
    };
    trickle.start();
    shown.start();
  }

  return {
    line(program, line) {
      const parsed = parseLogLine(line);
      if (isAtLeast(parsed, 'warn')) event(`${program}: ${parsed?.msg ?? line}`);
    },
    event: (program, text) => event(`${program} ${text}`),
    start,
    restore: () => screen?.stop(),
    stop: async () => stop?.(),
  };
}

/** What the keys do. Kill and freeze go round, so that each replica has its turn. */
function createKeys(lab: Lab, { event, onQuit }: { event: (text: string) => void; onQuit: () => void }) {
  let turn = 0;
  let wanted = lab.replicas.length;

  function nextServing() {
    const serving = lab.replicas.filter(({ state }) => state === 'serving');
    turn += 1;
    return serving[(turn - 1) % serving.length];
  }

  async function change(doing: string, done: string, action: Promise<void>): Promise<void> {
    event(doing);
    try {
      await action;
      event(done);
    } catch (error) {
      wanted = lab.replicas.length;
      event((error as Error).message.split('\n', 1)[0] ?? '');
    }
  }

  function scale(count: number): void {
    if (count < 1 || count > maxReplicas) return;
    wanted = count;
    void change(`scaling to ${count}`, `scaled to ${count}`, lab.scale(count));
  }

  function freeze(): void {
    const frozen = lab.replicas.find(({ state }) => state === 'frozen');
    const replica = frozen ?? nextServing();
    if (frozen) frozen.thaw();
    else replica?.freeze();
    if (replica) event(`${replica.name} ${frozen ? 'thawed' : 'frozen'}`);
  }

  return (key: string): void => {
    if (key === 'k') void nextServing()?.kill();
    else if (key === 'f') freeze();
    else if (key === '+') scale(wanted + 1);
    else if (key === '-') scale(wanted - 1);
    else if (key === 'r') void change('rolling', 'rolled', lab.roll());
    else if (key === 'q' || key === '\u0003') onQuit();
  };
}
