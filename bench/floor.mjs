// The floor under a round trip: bare quinn in two processes of its own, see floor.rs.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

export class Floor {
  #process;
  #lines;

  /** Builds it if need be, and starts it, with the database that it commits to in `file`. */
  static async start(file) {
    const floor = new Floor();
    floor.#process = spawn(build(), [file], { stdio: ['pipe', 'pipe', 'inherit'] });
    floor.#lines = createInterface({ input: floor.#process.stdout })[Symbol.asyncIterator]();
    return floor;
  }

  /** So many echoes, one after the other: their durations in ms. */
  echo(count) {
    return this.#measure('echo', count);
  }

  /** The same, each answered after a durable commit of one row. */
  commit(count) {
    return this.#measure('commit', count);
  }

  async #measure(kind, count) {
    this.#process.stdin.write(`${kind} ${count}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('the floor has ended; what it said is above');
    return value.split(' ').map((micros) => Number(micros) / 1000);
  }

  async stop() {
    if (this.#process.exitCode !== null) return;
    this.#process.stdin.end();
    await once(this.#process, 'exit');
  }
}

/** Builds the example and returns where it is. Cargo does nothing if it is up to date. */
function build() {
  const options = { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 28, encoding: 'utf8' };
  const args = ['build', '--release', '--quiet', '--example', 'floor', '--message-format', 'json'];
  const { status, stdout, error } = spawnSync('cargo', args, options);
  if (error) throw error;
  if (status !== 0) throw new Error('cargo could not build bench/floor.rs');
  const messages = stdout.trim().split('\n').map((line) => JSON.parse(line));
  const executable = messages.find((message) => message.executable && message.target?.name === 'floor')?.executable;
  if (!executable) throw new Error(`cargo names no executable for ${path.join(ROOT, 'bench', 'floor.rs')}`);
  return executable;
}
