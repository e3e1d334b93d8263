import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { buildDescriptorSet } from '../../services/gateway/testdata/build.ts';
import { projectFile } from '../harness/command.ts';
import { setFaults } from '../harness/faults.ts';
import { gatewayConfig } from '../harness/gateway-config.ts';
import { guarantee } from '../harness/guarantee.ts';
import { createHttpCaller } from '../harness/http-caller.ts';
import { startLab } from '../harness/lab-fixture.ts';
import type { Outcome } from '../harness/ledger.ts';
import { type LoadOptions, startLoad } from '../harness/load.ts';

/** What the replica works on at a time, each for 0.1 to 0.2 s: 80 calls/s, of which a busy machine can offer three times. */
const capacity = { capacity: 12, delayMs: 100, jitterMs: 100 };
/** Every fifth call is of high priority: 60 % of what the replica can do. */
const highEvery = 5;

/** A gateway before one replica, whose two methods differ in priority alone. */
async function startPair(t: TestContext, concurrency: { readonly min?: number; readonly max?: number }) {
  const directory = mkdtempSync(join(tmpdir(), 'tandem-overload-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const { lab, adminPort } = await startLab(t, { replicas: 1, gateways: 0, greeterEnv: { FAULTS: 'enabled' } });
  const upstream = { name: 'greeter', targets: [lab.target], concurrency };
  const low = { name: [{ service: 'helloworld.Greeter', method: 'SayHelloStreamRequest' }], priority: 'low' };
  const descriptors = buildDescriptorSet(projectFile('tests/chaos/two-priorities.proto'), directory);
  const { use, gatewayPort } = await startLab(t, {
    replicas: 0,
    gatewayEnv: { ...gatewayConfig(t, { upstreams: [upstream], policies: [low] }), DESCRIPTORS: descriptors },
  });
  await setFaults(adminPort(lab.replicas[0]?.name ?? ''), capacity);
  return use(createHttpCaller([gatewayPort()]));
}

/** How many of the calls that it makes for so long are answered meanwhile, a second; and what became of all of them. */
async function measure(send: () => Promise<Outcome>, forMs: number, options: LoadOptions) {
  let ok = 0;
  const load = startLoad(async () => {
    const outcome = await send();
    if (outcome.code === 'OK') ok += 1;
    return outcome;
  }, options);
  await delay(forMs);
  const okPerS = (ok / forMs) * 1_000;
  return { okPerS, ledger: await load.stop() };
}

guarantee('at three times what a service can do goodput is >= 90 % of the peak, and calls of high priority go first', {
  on: { limit: 'learned' },
  control: { limit: 'none' },
  async scenario({ limit }, t) {
    const caller = await startPair(t, limit === 'learned' ? {} : { min: 1_000, max: 1_000 });
    // Callers that wait for their replies, twice as many as it works on at a time.
    const fullyBusy = { callsPerS: 500, maxInFlight: 2 * capacity.capacity };
    await measure(() => caller.get('/v1/low/x'), 1_000, fullyBusy);
    const peak = await measure(() => caller.get('/v1/low/x'), 4_000, fullyBusy);

    const served = { high: { sent: 0, ok: 0 }, low: { sent: 0, ok: 0 } };
    let turn = 0;
    const send = async () => {
      const priority = turn++ % highEvery === 0 ? 'high' : 'low';
      const outcome = await caller.get(`/v1/${priority}/x`);
      served[priority].sent += 1;
      if (outcome.code === 'OK') served[priority].ok += 1;
      return outcome;
    };
    const { okPerS, ledger } = await measure(send, 15_000, { callsPerS: 3 * peak.okPerS, maxInFlight: 5_000 });
    return {
      ...ledger,
      figures: {
        peakPerS: peak.okPerS,
        goodputPerS: okPerS,
        goodputOfPeakPercent: (100 * okPerS) / peak.okPerS,
        highServedPercent: (100 * served.high.ok) / served.high.sent,
        lowServedPercent: (100 * served.low.ok) / served.low.sent,
      },
    };
  },
  valid: ({ sent, figures }) => figures.peakPerS >= 20 && sent >= 35 * figures.peakPerS,
  // In quiet nine of ten of high priority are served, and two of ten others.
  holds: ({ figures }) =>
    figures.goodputOfPeakPercent >= 90 && figures.highServedPercent >= 2 * figures.lowServedPercent,
});
