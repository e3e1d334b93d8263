import { resolve } from 'node:path';
import type { TestEvent } from 'node:test/reporters';

/** A reporter of `node --test` that fails a run in which no test ran, and names each file without a test. */
// oxlint-disable-next-line import/no-default-export -- node:test takes a reporter so
export default async function* testsRan(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  let ran = 0;
  for await (const { type, data } of events) {
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    if (data.skip !== undefined || data.todo !== undefined || data.details.type === 'suite') continue;
    // A file without a test is reported as a test of the file's name.
    if (data.file !== undefined && resolve(data.name) === data.file) {
      if (type === 'test:fail') continue;
      process.exitCode = 1;
      yield `${data.name} has no test\n`;
    } else ran += 1;
  }
  if (ran === 0) {
    process.exitCode = 1;
    yield 'no test ran\n';
  }
}
