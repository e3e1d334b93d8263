import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { goVersion } from './machine.ts';

const project = join(import.meta.dirname, '../..');
// Beside the project's packages: below bench/ those of the peers would be found first.
const out = join(project, '.build');
const programs = ['services/gateway/main.ts', 'services/greeter/main.ts', 'bench/subjects/gateway.ts'] as const;

/** Where the JavaScript of one of our programs is, as the image has it. */
export function built(program: (typeof programs)[number]): string {
  return join(out, program.replace(/\.ts$/, '.js'));
}

/** Makes the Go peer; undefined where Go is not installed. */
export function buildGoGateway(): string | undefined {
  if (goVersion() === undefined) return undefined;
  const program = join(out, 'grpc-gateway');
  execFileSync('go', ['build', '-o', program, '.'], { cwd: join(import.meta.dirname, '../peers/grpc-gateway') });
  return program;
}

/** Makes that JavaScript from the sources. */
export function build(): void {
  rmSync(out, { recursive: true, force: true });
  execFileSync(process.execPath, ['deploy/strip-types.ts', out, ...programs], {
    cwd: project,
    env: { NODE_NO_WARNINGS: '1' },
  });
}
