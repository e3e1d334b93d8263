import { Visitor } from '@swc/core/Visitor.js';

// swc parses `using`, its visitor does not know it: https://github.com/tc39/proposal-explicit-resource-management
const { visitStatement } = Visitor.prototype;
Visitor.prototype.visitStatement = function (statement) {
  if (statement.type !== 'UsingDeclaration') return visitStatement.call(this, statement);
  this.visitVariableDeclarators(statement.decls);
  return statement;
};

const tests = '[.]test[.]ts$|/test(ing|data)/|/testing[.]ts$';

/** Run by make, never in production. */
const tools = '^services/gateway/config-schema[.]ts$';

const rules = {
  'call-imports-nothing': {
    comment: 'The seam stands on its own.',
    from: { path: '^services/runtime/call/', pathNot: tests },
    to: { pathNot: '^services/runtime/call/' },
  },
  'process-knows-no-rpc': {
    from: { path: '^services/runtime/process/', pathNot: tests },
    to: { path: '^services/runtime/(call|channel|server)/|node_modules/@grpc/|node_modules/grpc-' },
  },
  'server-and-channel-apart': {
    comment: 'Both stand on call and process, neither on the other.',
    from: { path: '^services/runtime/(server|channel)/', pathNot: tests },
    to: { path: '^services/runtime/', pathNot: '^services/runtime/(call|process|$1)/' },
  },
  'runtime-knows-no-program': {
    from: { path: '^services/runtime/', pathNot: tests },
    to: { path: '^services/', pathNot: '^services/runtime/' },
  },
  'programs-apart': {
    comment: 'A program starts another as a process or calls it, and never imports it.',
    from: { path: '^services/(?!runtime/)([^/]+)/', pathNot: tests },
    to: { path: '^services/', pathNot: '^services/(runtime|$1)/' },
  },
  'nothing-imports-tests': {
    from: { path: '^services/', pathNot: tests },
    to: { path: `^tests/|${tests}` },
  },
  'no-cycles': {
    from: {},
    to: { circular: true },
  },
  'no-orphans': {
    comment: 'A file that nobody imports is dead. Programs, tests and their reporter are where imports begin.',
    from: { orphan: true, pathNot: `${tests}|/main[.]ts$|^tests/harness/tests-ran[.]ts$` },
    to: {},
  },
  resolvable: {
    from: {},
    to: { couldNotResolve: true },
  },
  'production-dependencies-only': {
    comment: 'The production install has `dependencies` and nothing else.',
    from: { path: '^services/', pathNot: `${tests}|${tools}` },
    to: { dependencyTypes: ['npm-dev', 'npm-optional', 'npm-no-pkg', 'npm-unknown', 'deprecated'] },
  },
};

/** The directions of imports, as CONTRIBUTING.md draws them. */
export default {
  forbidden: Object.entries(rules).map(([name, rule]) => ({ name, severity: 'error', ...rule })),
  options: {
    parser: 'swc',
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: {
      extensions: ['.ts'],
      exportsFields: ['exports'],
      conditionNames: ['import', 'require', 'node', 'default'],
    },
  },
};
