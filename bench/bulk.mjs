// Comparisons of 10,000 rows at once.

import path from 'node:path';

import Database from 'better-sqlite3';

import { interleave, series, timed } from './rounds.mjs';
import { CREATE, insertAll, rows } from './rows.mjs';

const COUNT = 10_000;
const ROUNDS = 7;
const ROWS = rows(COUNT);

let tenants = 0;

/** Plain inserts of the same rows in one transaction. */
export const bulkInserts = {
  file: undefined,

  /** Into a file: durable when it returns, as a push is. */
  intoFile(folder) {
    if (!this.file) {
      this.file = new Database(path.join(folder, 'plain.db'));
      this.file.pragma('journal_mode = WAL');
      this.file.pragma('synchronous = FULL');
    }
    const empty = () => this.file.exec(`DROP TABLE IF EXISTS memories; ${CREATE}`);
    return series(1, () => insertAll(this.file, ROWS), empty);
  },

  /** Into memory, where a pull ends as well. */
  async intoMemory() {
    const db = emptyDatabase();
    const duration = await timed(() => insertAll(db, ROWS));
    db.close();
    return [duration];
  },

  close() {
    this.file?.close();
  },
};

function emptyDatabase() {
  const db = new Database(':memory:');
  db.exec(CREATE);
  return db;
}

/** An agent of a new tenant, with an empty table that it has synced: capture is on. */
async function freshAgent(hub, tenant = `bulk-${(tenants += 1)}`, agentId = 'one') {
  const agent = await hub.agent(agentId, tenant);
  agent.db.exec(CREATE);
  await agent.sync();
  return { ...agent, tenant };
}

/** `await sync()` that sends 10,000 rows; they are on the hub's disk when it resolves. */
export async function push({ hub, folder }) {
  const pushAll = async () => {
    const agent = await freshAgent(hub);
    insertAll(agent.db, ROWS);
    const duration = await timed(async () => expectRows('pushed', await agent.sync()));
    await agent.end();
    return [duration];
  };
  return {
    name: 'push of 10,000 rows, durable',
    floorName: 'plain inserts into a file, one transaction, WAL, FULL',
    samples: await interleave(ROUNDS, () => bulkInserts.intoFile(folder), pushAll),
    rows: COUNT,
  };
}

/** `await sync()` that fetches 10,000 rows into a table that was empty. */
export async function pull({ hub }) {
  const pullAll = async () => {
    const author = await freshAgent(hub);
    const reader = await freshAgent(hub, author.tenant, 'two');
    insertAll(author.db, ROWS);
    await author.sync();
    const duration = await timed(async () => expectRows('pulled', await reader.sync()));
    await author.end();
    await reader.end();
    return [duration];
  };
  return {
    name: 'pull of 10,000 rows',
    floorName: 'plain inserts into memory, one transaction',
    samples: await interleave(ROUNDS, () => bulkInserts.intoMemory(), pullAll),
    rows: COUNT,
  };
}

/** Inserts in one transaction, while triggers note them. */
export async function capture({ hub }) {
  const insertCaptured = async () => {
    const agent = await freshAgent(hub);
    const duration = await timed(() => insertAll(agent.db, ROWS));
    await agent.end();
    return [duration];
  };
  return {
    name: 'insert of 10,000 rows, capture on',
    floorName: 'the same, capture off',
    samples: await interleave(2 * ROUNDS + 1, () => bulkInserts.intoMemory(), insertCaptured),
    rows: COUNT,
  };
}

function expectRows(what, report) {
  if (report[what] !== COUNT) throw new Error(`${what} ${report[what]} rows instead of ${COUNT}`);
}
