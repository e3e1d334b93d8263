/** The sum of a program's samples of that name that have these labels, read from its admin port. */
export async function sumOfMetric(
  adminPort: number,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): Promise<number> {
  // Else the connection is kept for a while, and looks like one that the test forgot.
  const response = await fetch(`http://127.0.0.1:${adminPort}/metrics`, { headers: { connection: 'close' } });
  const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
  let sum = 0;
  for (const line of (await response.text()).split('\n')) {
    const [, metric, found = '', value] = /^(\w+)(\{.*\})? (\S+)/.exec(line) ?? [];
    if (metric === name && wanted.every((label) => found.includes(label))) sum += Number(value);
  }
  return sum;
}
