// The Rust side of the benchmark: examples of the crate.

import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** Builds the example and returns where it is. Cargo does nothing if it is up to date. */
export function build(name) {
  const options = { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 28, encoding: 'utf8' };
  const args = ['build', '--release', '--quiet', '--example', name, '--message-format', 'json'];
  const { status, stdout, error } = spawnSync('cargo', args, options);
  if (error) throw error;
  if (status !== 0) throw new Error(`cargo could not build bench/${name}.rs`);
  const messages = stdout.trim().split('\n').map((line) => JSON.parse(line));
  const executable = messages.find((message) => message.executable && message.target?.name === name)?.executable;
  if (!executable) throw new Error(`cargo names no executable for ${path.join(ROOT, 'bench', `${name}.rs`)}`);
  return executable;
}
