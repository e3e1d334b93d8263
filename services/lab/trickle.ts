import { Agent, get } from 'node:http';

/** A few calls a second through the gateway, for as long as the screen shows what becomes of them. */
export interface Trickle {
  start(): void;
  /** Resolves once every call that was sent has ended. */
  stop(): Promise<void>;
  readonly sent: number;
  readonly failed: number;
  /** The share of each replica, 0 to 1, in what was answered of late. */
  shares(): ReadonlyMap<string, number>;
}

const windowMs = 3_000;
const maxInFlight = 50;
const timeoutMs = 12_000;

export function createTrickle({ url, callsPerS }: { readonly url: string; readonly callsPerS: number }): Trickle {
  const agent = new Agent({ keepAlive: true });
  let answers: { readonly atMs: number; readonly replica: string }[] = [];
  let timer: NodeJS.Timeout | undefined;
  let inFlight = 0;
  let sent = 0;
  let failed = 0;
  let onIdle: (() => void) | undefined;

  function call(): void {
    if (inFlight >= maxInFlight) return;
    sent += 1;
    inFlight += 1;
    let replica: string | undefined;
    const request = get(url, { agent, timeout: timeoutMs }, (response) => {
      response.resume();
      response.once('end', () => {
        if (response.statusCode === 200) replica = String(response.headers['served-by']);
      });
    });
    request.once('timeout', () => request.destroy());
    request.on('error', () => {}); // counted when it closes, as every call that was not answered
    request.once('close', () => {
      inFlight -= 1;
      if (replica === undefined) failed += 1;
      else answers.push({ atMs: performance.now(), replica });
      if (inFlight === 0) onIdle?.();
    });
  }

  return {
    start() {
      timer = setInterval(call, 1000 / callsPerS);
    },
    async stop() {
      clearInterval(timer);
      if (inFlight > 0) await new Promise<void>((resolve) => (onIdle = resolve));
      agent.destroy();
    },
    get sent() {
      return sent;
    },
    get failed() {
      return failed;
    },
    shares() {
      const sinceMs = performance.now() - windowMs;
      answers = answers.filter(({ atMs }) => atMs >= sinceMs);
      const shares = new Map<string, number>();
      for (const { replica } of answers) shares.set(replica, (shares.get(replica) ?? 0) + 1 / answers.length);
      return shares;
    },
  };
}
