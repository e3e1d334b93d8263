import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { pino } from 'pino';
import { createAccessLog } from './access-log.ts';

const logAt = (level: string) => pino({ level }, { write() {} });

describe('access log', () => {
  it('tells what went wrong or took long whatever the share of the rest', () => {
    const { levelOf } = createAccessLog(logAt('info'), 0);
    const id = 'a';
    assert.equal(levelOf({ fault: 'server', slow: false, id }), 'warn');
    assert.equal(levelOf({ fault: 'client', slow: false, id }), 'info');
    assert.equal(levelOf({ fault: 'none', slow: true, id }), 'info');
    assert.equal(levelOf({ fault: 'none', slow: false, id }), undefined);
  });

  it('tells everything at debug, and follows the log when its level changes', () => {
    const log = logAt('info');
    const { levelOf } = createAccessLog(log, 0);
    log.level = 'debug';
    assert.equal(levelOf({ fault: 'none', slow: false, id: 'a' }), 'debug');
    log.level = 'error';
    assert.equal(levelOf({ fault: 'server', slow: false, id: 'a' }), undefined);
  });

  it('takes the share it is told, and the same requests in each process', () => {
    const ids = Array.from({ length: 20_000 }, (_, i) => `req-${i}`);
    for (const ratio of [0, 0.01, 0.5, 1]) {
      const [one, other] = [createAccessLog(logAt('info'), ratio), createAccessLog(logAt('info'), ratio)];
      const logged = (log: typeof one) =>
        ids.filter((id) => log.levelOf({ fault: 'none', slow: false, id }) !== undefined);
      assert.deepEqual(logged(one), logged(other));
      assert.ok(Math.abs(logged(one).length / ids.length - ratio) < 0.015, `${logged(one).length} at ${ratio}`);
      const drawn = ids.filter(() => one.levelOf({ fault: 'none', slow: false, id: undefined }) !== undefined);
      assert.ok(Math.abs(drawn.length / ids.length - ratio) < 0.015, `${drawn.length} at ${ratio}`);
    }
  });
});
