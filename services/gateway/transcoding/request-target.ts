/**
 * What is wrong with the target of a request, `/path?query` as it was sent; undefined if nothing is. What two programs
 * in a row could understand in two ways is refused: `..`, a backslash, control characters, the absolute form, and
 * what is not percent-encoded as it must be. In a query values may have control characters, as in a body.
 * https://www.rfc-editor.org/rfc/rfc9110#section-17.1, https://www.rfc-editor.org/rfc/rfc3986#section-6.2.2
 */
export function problemOfTarget(target: string): string | undefined {
  if (plain.test(target)) return undefined;
  if (!target.startsWith('/')) return 'the request target must be a path that begins with /';
  if (!/^[\x21-\x7e]*$/.test(target) || /[\\#]/.test(target)) return 'the request target must be percent-encoded ASCII';
  const [path = ''] = target.split('?', 1);
  if (/%(?:[01][\da-f]|7f)/i.test(path)) return 'the path must not have control characters';
  if (/\/(?:\.|%2e){1,2}(?:\/|$)/i.test(path)) return 'the path must not have . or .. as a segment';
  try {
    decodeURIComponent(path);
  } catch {
    return 'the path must be percent-encoded UTF-8';
  }
  return undefined;
}

/** What most targets are: nothing encoded, no dot in the path. */
const plain = /^\/[\w!$&'()*+,;=:@~/-]*(?:\?[\x21-\x22\x24-\x5b\x5d-\x7e]*)?$/;
