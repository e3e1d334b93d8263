#!/usr/bin/env node
import { ConfigError } from '#runtime/process/config.ts';
import { inClusterAccess } from '#runtime/channel/resolver/kubernetes.ts';
import { codeName, RpcError } from '#runtime/call/status.ts';
import { help, parseArguments } from './arguments.ts';
import { hello } from './hello.ts';

const { stdin, stdout, stderr } = process;
const argv = process.argv.slice(2);
stdout.on('error', () => process.exit(0)); // whoever read has gone, as `head` does

if (argv.includes('--help')) {
  stdout.write(help);
  process.exit(0);
}

try {
  const options = parseArguments(argv);
  await hello({
    ...options,
    kubernetes: inClusterAccess(process.env),
    stdin,
    onGreeting: ({ message, servedBy }) =>
      stdout.write(options.json ? `${JSON.stringify({ message, servedBy })}\n` : `Greeting: ${message}\n`),
  });
  process.exit(0);
} catch (error) {
  if (error instanceof ConfigError) stderr.write(`hello: ${error.message}\n`);
  else if (error instanceof RpcError) stderr.write(`could not greet: ${codeName(error.code)}: ${error.details}\n`);
  else throw error;
  process.exit(1);
}
