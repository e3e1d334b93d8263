import { setTimeout as delay } from 'node:timers/promises';
import type { AttemptCounters } from '#runtime/channel/metrics.ts';
import type { CallCounters } from '#runtime/server/observe.ts';
import { startCollector } from '../harness/collector.ts';
import { projectFile } from '../harness/command.ts';
import { guarantee } from '../harness/guarantee.ts';
import { createHttpCaller } from '../harness/http-caller.ts';
import { type LabFixture, startLab } from '../harness/lab-fixture.ts';
import { startLoad } from '../harness/load.ts';
import type { Span } from '../harness/spans.ts';

const method = 'helloworld.Greeter/SayHello';
/** Loaded before a program, it ends the program's telemetry with the signal to stop. */
const stopTelemetryFirst = { NODE_OPTIONS: `--import=${projectFile('tests/chaos/testdata/stop-telemetry-first.ts')}` };

// The collector is one of the test's own, which keeps each span that it is sent, because the claim is about exact numbers.
// tests/integration/tracing.test.ts shows that Jaeger understands them.
guarantee('requests, counters and spans add up over rolling the replicas and stopping a gateway under load', {
  on: { telemetryStops: 'after the drain' },
  control: { telemetryStops: 'before the drain' },
  async scenario({ telemetryStops }, t) {
    const { spans, env } = await startCollector(t);
    const fixture = await startLab(t, {
      replicas: 3,
      gateways: 2,
      env: { ...env, ...(telemetryStops === 'before the drain' && stopTelemetryFirst), DRAIN_DELAY: '400ms' },
      // Connections that end all the time make for attempts that no replica sees.
      greeterEnv: { MAX_CONNECTION_AGE: '1s' },
    });
    const ports = [fixture.gatewayPort(0), fixture.gatewayPort(1)];
    const caller = fixture.use(createHttpCaller(ports));
    const load = startLoad(() => caller.get('/v1/hello/world'), { callsPerS: 60 });
    await fixture.lab.roll();
    const stopped = fixture.lab.gateways[0]?.stop(20_000);
    await delay(200); // as long as a load balancer may take to hear of it
    caller.use(ports.slice(1));
    await stopped;
    const ledger = await load.stop();
    await fixture.lab.stop();
    return { ...ledger, figures: { ...countersOf(fixture), ...countSpans(spans) } };
  },
  // A busy machine sheds some: they are requests too.
  valid: ({ ok, figures }) => ok >= 150 && figures.processes === 8,
  holds: ({ sent, figures }) =>
    figures.requests === sent &&
    figures.requestSpans === sent &&
    figures.attempts === figures.greeterCalls + figures.unseenAttempts &&
    figures.attemptSpans === figures.attempts &&
    figures.unseenSpans === figures.unseenAttempts &&
    figures.greeterSpans === figures.greeterCalls,
});

/** What the programs said of themselves in their last lines, summed up. */
function countersOf({ lines }: LabFixture) {
  const sums = { processes: 0, requests: 0, attempts: 0, unseenAttempts: 0, greeterCalls: 0 };
  for (const { line } of lines) {
    if (!line.includes('"msg":"stopped"')) continue;
    const last = JSON.parse(line) as {
      readonly requests?: Readonly<Record<string, number>>;
      readonly attempts?: Readonly<Record<string, AttemptCounters>>;
      readonly [method]?: CallCounters;
    };
    sums.processes++;
    for (const requests of Object.values(last.requests ?? {})) sums.requests += requests;
    for (const { attempts, unseen } of Object.values(last.attempts ?? {})) {
      sums.attempts += attempts;
      sums.unseenAttempts += unseen;
    }
    sums.greeterCalls += last[method]?.started ?? 0;
  }
  return sums;
}

function countSpans(spans: readonly Span[]) {
  const of = (process: string, kind: string) =>
    spans.filter((span) => span.process.startsWith(process) && span.kind === kind);
  const attempts = of('gateway', 'CLIENT');
  return {
    requestSpans: of('gateway', 'SERVER').length,
    attemptSpans: attempts.length,
    unseenSpans: attempts.filter(({ attributes }) => attributes.get('tandem.attempt.unseen') === true).length,
    greeterSpans: of('greeter', 'SERVER').length,
  };
}
