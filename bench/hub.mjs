// The hub in a process of its own, with a real file.

import { fork } from 'node:child_process';
import { once } from 'node:events';

import Database from 'better-sqlite3';
import { FederationHub } from 'federation-hub';

export class BenchHub {
  #process;

  /** With the options of a hub. */
  static async start(dataPath, options = {}) {
    const hub = new BenchHub();
    const args = [JSON.stringify({ dataPath, ...options })];
    hub.#process = fork(new URL('hub-process.mjs', import.meta.url), args);
    await once(hub.#process, 'message');
    return hub;
  }

  get pid() {
    return this.#process.pid;
  }

  /** What an agent is configured with, and the hub's `metricsEndpoint`. */
  async config(agentId, tenantId) {
    this.#process.send({ agentId, tenantId });
    const [config] = await once(this.#process, 'message');
    return config;
  }

  /** A connected agent of its own, with mutual TLS and an empty `:memory:` database. */
  async agent(agentId, tenantId) {
    const { metricsEndpoint, ...config } = await this.config(agentId, tenantId);
    const hub = new FederationHub(config);
    await hub.connect();
    const db = new Database(':memory:');
    return {
      db,
      sync: () => hub.sync(db),
      async end() {
        await hub.disconnect();
        db.close();
      },
    };
  }

  async stop() {
    this.#process.disconnect();
    await once(this.#process, 'exit');
  }
}
