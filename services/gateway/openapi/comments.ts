import type {
  DescEnum,
  DescEnumValue,
  DescField,
  DescFile,
  DescMessage,
  DescMethod,
  DescOneof,
  DescService,
} from '@bufbuild/protobuf';

type Documented = DescEnum | DescEnumValue | DescField | DescMessage | DescMethod | DescOneof | DescService;

/** Field numbers of `descriptor.proto`, of which the paths of comments are made. */
const numbers = {
  file: { messageType: 4, enumType: 5, service: 6 },
  message: { field: 2, nestedType: 3, enumType: 4, oneofDecl: 8 },
  enum: { value: 2 },
  service: { method: 2 },
} as const;

const commentsByFile = new WeakMap<DescFile, Map<string, string>>();

/**
 * The comment of an element in its `.proto`: the one above it, or else the one behind it, as CommonMark. Empty where there
 * is none, or where the descriptor set was built without source info. What is for the authors only is left out: `(-- … --)`
 * (https://google.aip.dev/192) and the directives of linters.
 */
export function commentOf(desc: Documented): string {
  const { file, path } = placeOf(desc);
  let comments = commentsByFile.get(file);
  if (comments === undefined) {
    const locations = file.proto.sourceCodeInfo?.location ?? [];
    comments = new Map(
      locations.map((one) => [one.path.join('.'), clean(one.leadingComments || one.trailingComments)] as const),
    );
    commentsByFile.set(file, comments);
  }
  return comments.get(path.join('.')) ?? '';
}

/** The first sentence of a comment, on one line. */
export function firstSentence(comment: string): string {
  const [paragraph = ''] = comment.split(/\n\s*\n/, 1);
  const line = paragraph.replace(/\s+/g, ' ').trim();
  // A dot within `e.g. this` ends nothing: what follows an end begins with no small letter.
  return /^.*?[.!?](?=\s+[^\sa-z]|$)/.exec(line)?.[0] ?? line;
}

function clean(comment: string): string {
  return comment
    .replace(/\(--[^]*?--\)/g, '')
    .split(/\r\n|[\r\n\u2028\u2029]/)
    .filter((line) => !/^\s*(?:buf:lint:|@exclude\b|nolint\b)/.test(line))
    .map((line) => line.replace(/^ /, '').trimEnd())
    .join('\n')
    .trim();
}

/** https://github.com/protocolbuffers/protobuf/blob/main/src/google/protobuf/descriptor.proto, SourceCodeInfo.Location.path */
function placeOf(desc: Documented): { readonly file: DescFile; readonly path: readonly number[] } {
  switch (desc.kind) {
    case 'message':
      if (desc.parent) return below(desc.parent, numbers.message.nestedType, desc.parent.proto.nestedType, desc);
      return atTop(desc.file, numbers.file.messageType, desc.file.proto.messageType, desc);
    case 'enum':
      if (desc.parent) return below(desc.parent, numbers.message.enumType, desc.parent.proto.enumType, desc);
      return atTop(desc.file, numbers.file.enumType, desc.file.proto.enumType, desc);
    case 'service':
      return atTop(desc.file, numbers.file.service, desc.file.proto.service, desc);
    case 'rpc':
      return below(desc.parent, numbers.service.method, desc.parent.proto.method, desc);
    case 'field':
      return below(desc.parent, numbers.message.field, desc.parent.proto.field, desc);
    case 'oneof':
      return below(desc.parent, numbers.message.oneofDecl, desc.parent.proto.oneofDecl, desc);
    case 'enum_value':
      return below(desc.parent, numbers.enum.value, desc.parent.proto.value, desc);
  }
}

function atTop(file: DescFile, number: number, siblings: readonly object[], { proto }: Documented) {
  return { file, path: [number, siblings.indexOf(proto)] };
}

function below(parent: Documented, number: number, siblings: readonly object[], { proto }: Documented) {
  const { file, path } = placeOf(parent);
  return { file, path: [...path, number, siblings.indexOf(proto)] };
}
