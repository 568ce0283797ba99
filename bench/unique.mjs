// Rows that hand on unique values: a list with a new first item, and values that go round in a circle.

import Database from 'better-sqlite3';

import { interleave, timed } from './rounds.mjs';

const ROUNDS = 3;
const CREATE = 'CREATE TABLE items (id INTEGER PRIMARY KEY, list INTEGER, pos INTEGER, title TEXT, UNIQUE (list, pos))';

let tenants = 0;

/** 2,000 rows move by one place, and a new one takes the first. */
const INSERTED = {
  name: '2,000 rows of UNIQUE(list, pos) with a new first item',
  count: 2_000,
  change(db) {
    db.exec('UPDATE items SET pos = -pos; UPDATE items SET pos = 1 - pos');
    db.exec("INSERT INTO items (list, pos, title) VALUES (1, 1, 'new')");
  },
};

/** 10,000 rows each take the place of the next one, and the last one that of the first. */
const ROTATED = {
  name: '10,000 rows of UNIQUE(list, pos) rotated',
  count: 10_000,
  change: (db) => db.exec('UPDATE items SET pos = -(pos % 10000 + 1); UPDATE items SET pos = -pos'),
};

/** How long its author and a reader need to sync it. */
const duration = ({ agents, change }) => timed(() => syncBoth(agents, change));

/** The longest that one of the two holds its JavaScript thread meanwhile. */
async function longestStretch({ agents, change }) {
  let [longest, last, isOver] = [0, performance.now(), false];
  const tick = () => {
    const now = performance.now();
    [longest, last] = [Math.max(longest, now - last), now];
    if (!isOver) setImmediate(tick);
  };
  change();
  setImmediate(() => {
    last = performance.now();
    tick();
  });
  await syncBoth(agents, () => {});
  isOver = true;
  return longest;
}

async function syncBoth([author, reader], change) {
  change();
  await author.sync();
  const { quarantined } = await reader.sync();
  if (quarantined > 0) throw new Error(`${quarantined} rows are set aside`);
}

async function compare({ hub }, { name, count, change }, measure, what) {
  const changePlainly = async () => {
    const db = filled(new Database(':memory:'), count);
    const took = await timed(() => db.transaction(() => change(db))());
    db.close();
    return [took];
  };
  const sync = async () => {
    const tenant = `unique-${(tenants += 1)}`;
    const agents = [await hub.agent('author', tenant), await hub.agent('reader', tenant)];
    const [author, reader] = agents;
    filled(author.db, count);
    reader.db.exec(CREATE);
    await author.sync();
    await reader.sync();
    const took = await measure({ agents, change: () => author.db.transaction(() => change(author.db))() });
    expectSame(author.db, reader.db);
    for (const agent of agents) await agent.end();
    return [took];
  };
  return {
    name: `${what}${name}`,
    floorName: 'the statements themselves, in memory',
    samples: await interleave(ROUNDS, changePlainly, sync),
    rows: measure === duration ? count : undefined,
  };
}

function filled(db, count) {
  db.exec(CREATE);
  const insert = db.prepare('INSERT INTO items VALUES (?, 1, ?, ?)');
  db.transaction(() => {
    for (let id = 1; id <= count; id++) insert.run(id, id, `item ${id}`);
  })();
  return db;
}

function expectSame(...databases) {
  const read = (db) => JSON.stringify(db.prepare('SELECT pos, title FROM items ORDER BY pos').all());
  const [one, other] = databases.map(read);
  if (one !== other) throw new Error('the reader has other rows than the author');
}

/** What hands on unique values, each with the time that it takes and the longest stretch on the JavaScript thread. */
export const uniqueValues = [INSERTED, ROTATED].flatMap((one) => [
  (setting) => compare(setting, one, duration, ''),
  (setting) => compare(setting, one, longestStretch, 'longest stretch on the JS thread: '),
]);
