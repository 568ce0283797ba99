// An agent's process: a memory of its own, and a line to the hub.

import Database from 'better-sqlite3';
import { FederationHub } from 'federation-hub';

import { contents } from './contents.mjs';
import { SCHEMA } from './memory.mjs';
import { serve } from './remote.mjs';

const memory = new Database(':memory:');
let hub;

serve({
  async connect(config) {
    hub = new FederationHub(config);
    await hub.connect();
  },
  createTables: () => void memory.exec(SCHEMA),
  run: (sql, params) => memory.prepare(sql).run(...params).changes,
  all: (sql, params) => memory.prepare(sql).all(...params),
  sync: () => hub.sync(memory),
  contents: () => contents(memory),
});
