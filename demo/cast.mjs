// Who plays: a hub and agents, each in a process of its own.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { FederationHubServer } from 'federation-hub';

import { embedding } from './memory.mjs';
import { synced } from './narrator.mjs';
import { Remote } from './remote.mjs';

/** The hub: its process can end, its file and its credentials stay. */
export class Hub {
  #process;
  #options;

  /** Starts a hub on a free port, with its rows in a file in `folder`. */
  static async start(folder) {
    const hub = new Hub();
    const credentials = await FederationHubServer.generateCredentials();
    hub.#options = { listen: '127.0.0.1:0', dataPath: path.join(folder, 'hub.db'), credentials };
    await hub.restart();
    // From now on always the same port, so that agents find it again.
    hub.#options.listen = hub.endpoint.replace('quic://', '');
    return hub;
  }

  async restart() {
    this.#process = new Remote(new URL('hub-process.mjs', import.meta.url));
    this.endpoint = await this.#process.call('start', this.#options);
  }

  get pid() {
    return this.#process.pid;
  }

  /** Ends the process without any warning. */
  kill() {
    return this.#process.end('SIGKILL');
  }

  /** What an agent needs to connect: a plain object with a certificate and a token. */
  agentConfig(agentId, tenantId) {
    return this.#process.call('agentConfig', { agentId, tenantId });
  }

  stats() {
    return this.#process.call('stats');
  }
}

/** An agent: a process with a `:memory:` database. */
export class Agent {
  #process = new Remote(new URL('agent-process.mjs', import.meta.url));

  constructor(name) {
    this.name = name;
  }

  get pid() {
    return this.#process.pid;
  }

  connect(config) {
    return this.#process.call('connect', config);
  }

  createTables() {
    return this.#process.call('createTables');
  }

  /** Runs SQL on the agent's own database; resolves to the number of rows changed. */
  run(sql, ...params) {
    return this.#process.call('run', sql, params);
  }

  all(sql, ...params) {
    return this.#process.call('all', sql, params);
  }

  /** The first row; undefined if there is none. */
  async get(sql, ...params) {
    return (await this.all(sql, ...params))[0];
  }

  learn(task, reward, critique) {
    const sql = 'INSERT INTO episodes (task, reward, critique, embedding) VALUES (?, ?, ?, ?)';
    return this.run(sql, task, reward, critique, embedding(task));
  }

  note(id, body) {
    return this.run('INSERT INTO notes (id, body) VALUES (?, ?)', id, body);
  }

  /** Syncs, and tells what that did. */
  async sync() {
    const report = await this.#process.call('sync');
    synced(this.name, report);
    return report;
  }

  contents() {
    return this.#process.call('contents');
  }

  end() {
    return this.#process.end();
  }
}

/** Starts everybody, runs the play, and ends every process whatever happens. */
export async function withCast(play) {
  const folder = await mkdtemp(path.join(tmpdir(), 'federation-hub-demo-'));
  const [ada, ben, cleo, zoe] = ['ada', 'ben', 'cleo', 'zoe'].map((name) => new Agent(name));
  let hub;
  try {
    hub = await Hub.start(folder);
    await play({ hub, ada, ben, cleo, zoe });
  } finally {
    await Promise.all([hub?.kill(), ...[ada, ben, cleo, zoe].map((agent) => agent.end())]);
    await rm(folder, { recursive: true, force: true });
  }
}
