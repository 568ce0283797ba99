// Functions of another process, called as if they were here, over Node's own channel between parent and child.

import { fork } from 'node:child_process';
import { once } from 'node:events';

/** A module that runs in a process of its own and has called {@link serve}. Parent's side. */
export class Remote {
  #child;
  #calls = new Map();
  #nextId = 1;

  /** Starts the module at `url`; `options` are those of Node's `fork`. */
  constructor(url, options = {}) {
    // 'advanced' carries bytes and 64-bit integers unharmed; JSON would not.
    this.#child = fork(url, { serialization: 'advanced', ...options });
    this.#child.on('message', ({ id, value, error }) => {
      const { resolve, reject } = this.#calls.get(id);
      this.#calls.delete(id);
      if (error) reject(Object.assign(new Error(error.message), { code: error.code }));
      else resolve(value);
    });
    this.#child.on('exit', (code, signal) => {
      for (const { reject } of this.#calls.values()) reject(new Error(`process ended (${signal ?? code})`));
      this.#calls.clear();
    });
  }

  get pid() {
    return this.#child.pid;
  }

  /** Calls a function that the module serves; resolves to what it returns. */
  call(method, ...args) {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      this.#child.send({ id, method, args }, (error) => error && reject(error));
    });
  }

  /** Ends the process, and waits until it has. SIGKILL gives it no chance to tidy up. */
  async end(signal = 'SIGKILL') {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill(signal);
    await exited;
  }
}

/** Lets the parent call these functions. Child's side. */
export function serve(functions) {
  process.on('message', async ({ id, method, args }) => {
    try {
      process.send({ id, value: await functions[method](...args) });
    } catch (error) {
      process.send({ id, error: { code: error.code, message: error.message } });
    }
  });
  // Without its parent it has nothing to do.
  process.on('disconnect', () => process.exit());
}
