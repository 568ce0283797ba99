// The floor under a round trip: bare quinn in two processes of its own, see floor.rs.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

import { build } from './build.mjs';

export class Floor {
  #process;
  #lines;

  /** Builds it if need be, and starts it, with the database that it commits to in `file`. */
  static async start(file) {
    const floor = new Floor();
    floor.#process = spawn(build('floor'), [file], { stdio: ['pipe', 'pipe', 'inherit'] });
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
