// A pull of 100,000 rows into a table with a full-text index that triggers keep, and into one without.

import Database from 'better-sqlite3';

import { interleave, timed } from './rounds.mjs';
import { CREATE, insertAll, rows } from './rows.mjs';

const COUNT = 100_000;
// After one round of warming up: most of the time goes into the index, on both sides.
const ROUNDS = 1;

/** SQLite's own recipe: an index of external content, and three triggers. */
const INDEX = `
  CREATE VIRTUAL TABLE found USING fts5(content, content='memories', content_rowid='rowid');
  CREATE TRIGGER memories_ai AFTER INSERT ON memories BEGIN
    INSERT INTO found(rowid, content) VALUES (new.rowid, new.content); END;
  CREATE TRIGGER memories_ad AFTER DELETE ON memories BEGIN
    INSERT INTO found(found, rowid, content) VALUES ('delete', old.rowid, old.content); END;
  CREATE TRIGGER memories_au AFTER UPDATE ON memories BEGIN
    INSERT INTO found(found, rowid, content) VALUES ('delete', old.rowid, old.content);
    INSERT INTO found(rowid, content) VALUES (new.rowid, new.content); END`;

const TENANT = 'search';
let readers = 0;
let prepared;

/** The rows, the words in them with how many rows have each, and a tenant that has the rows. */
async function rowsAtHub(hub) {
  const all = rows(COUNT);
  const words = new Map();
  for (const { content } of all) {
    for (const word of new Set(content.split(' ').filter(Boolean))) words.set(word, (words.get(word) ?? 0) + 1);
  }
  const author = await hub.agent('author', TENANT);
  author.db.exec(CREATE);
  insertAll(author.db, all);
  const { pushed } = await author.sync();
  if (pushed !== COUNT) throw new Error(`pushed ${pushed} rows instead of ${COUNT}`);
  await author.end();
  return { all, words };
}

/** The pull without the index. */
export const pullWithoutIndex = (setting) => compare(setting, '');

/** The pull with the index: sound, and every word of every row is found. */
export const pullWithIndex = (setting) => compare(setting, INDEX);

async function compare({ hub }, index) {
  prepared ??= rowsAtHub(hub);
  const { all, words } = await prepared;
  const insertAllRows = async () => {
    const db = new Database(':memory:');
    db.exec(CREATE + ';' + index);
    const duration = await timed(() => insertAll(db, all));
    db.close();
    return [duration];
  };
  const pullAll = async () => {
    const reader = await hub.agent(`reader-${(readers += 1)}`, TENANT);
    reader.db.exec(CREATE + ';' + index);
    const duration = await timed(async () => {
      const { pulled, notices } = await reader.sync();
      const unexpected = notices.filter((notice) => !notice.startsWith('not shared'));
      if (pulled !== COUNT || unexpected.length > 0) throw new Error(`pulled ${pulled}: ${unexpected.join()}`);
    });
    if (index) expectFound(reader.db, words);
    await reader.end();
    return [duration];
  };
  const what = index ? ', with an FTS5 index' : '';
  return {
    name: `pull of 100,000 rows${what}`,
    floorName: `plain inserts into memory${what}`,
    samples: await interleave(ROUNDS, insertAllRows, pullAll),
    rows: COUNT,
  };
}

function expectFound(db, words) {
  db.exec("INSERT INTO found(found, rank) VALUES ('integrity-check', 1)");
  const count = db.prepare('SELECT count(*) FROM found WHERE found MATCH ?').pluck();
  for (const [word, expected] of words) {
    const found = count.get(`"${word}"`);
    if (found !== expected) throw new Error(`${word} is in ${expected} rows and found in ${found}`);
  }
}
