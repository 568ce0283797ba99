// Indexes that triggers keep, of modules that are not SQLite's own: vectors in sqlite-vec.

import { load } from 'sqlite-vec'

import { connectAgent, openDatabase, startHub, type Handle } from './support'

/** A part of the index that SQLite takes for an ordinary table. */
const PART = 'near_vector_chunks00'

const MEMORIES = 'CREATE TABLE memories (id INTEGER PRIMARY KEY, slug TEXT UNIQUE, text TEXT, embedding BLOB)'
const INDEX = `
  CREATE VIRTUAL TABLE near USING vec0(embedding float[3]);
  CREATE TRIGGER memories_ai AFTER INSERT ON memories WHEN new.embedding IS NOT NULL BEGIN
    INSERT INTO near(rowid, embedding) VALUES (new.id, new.embedding); END;
  CREATE TRIGGER memories_ad AFTER DELETE ON memories BEGIN DELETE FROM near WHERE rowid = old.id; END;
  CREATE TRIGGER memories_au AFTER UPDATE OF embedding ON memories BEGIN
    DELETE FROM near WHERE rowid = old.id;
    INSERT INTO near(rowid, embedding) SELECT new.id, new.embedding WHERE new.embedding IS NOT NULL; END`

function openVectors(): Handle {
  const db = openDatabase()
  load(db)
  db.exec(`${MEMORIES};${INDEX}`)
  return db
}

function remember(db: Handle, slug: string, vector: number[]): void {
  const insert = 'INSERT INTO memories (slug, text, embedding) VALUES (?, ?, ?)'
  db.prepare(insert).run(slug, `about ${slug}`, Buffer.from(new Float32Array(vector).buffer))
}

/** The memories nearest to a vector, with their distances. */
function nearest(db: Handle, vector: number[], count = 2): unknown[][] {
  const query = `SELECT slug, round(distance, 3) FROM near JOIN memories ON memories.id = near.rowid
    WHERE near.embedding MATCH ? AND k = ${count} ORDER BY distance`
  return db.prepare(query).raw().all(JSON.stringify(vector)) as unknown[][]
}

test('vectors that a sync brings are found', async () => {
  const server = await startHub()
  const [one, two] = [openVectors(), openVectors()]
  const choice = { tables: { exclude: [PART] } }
  const [first, second] = [await connectAgent(server, 'one', choice), await connectAgent(server, 'two', choice)]
  const settle = async (): Promise<void> => {
    for (let round = 0; round < 2; round++) {
      for (const report of [await first.sync(one), await second.sync(two)]) {
        expect(report).toMatchObject({ rejected: 0, quarantined: 0 })
        expect(report.notices.filter((notice) => !notice.startsWith('not shared'))).toEqual([])
      }
    }
  }
  remember(one, 'x', [1, 0, 0])
  remember(one, 'y', [0, 1, 0])
  remember(two, 'z', [0, 0, 1])
  await settle()
  for (const db of [one, two]) {
    expect(nearest(db, [0, 0.9, 0], 1)).toEqual([['y', 0.1]])
    expect(nearest(db, [0, 0, 1], 1)).toEqual([['z', 0]])
  }
  one.prepare("UPDATE memories SET embedding = ? WHERE slug = 'x'").run(Buffer.from(new Float32Array([0, 0, 2]).buffer))
  one.exec("DELETE FROM memories WHERE slug = 'y'")
  two.exec("INSERT INTO memories (slug, text) VALUES ('w', 'without a vector')")
  await settle()
  for (const db of [one, two]) {
    expect(nearest(db, [0, 0, 1])).toEqual([
      ['z', 0],
      ['x', 1],
    ])
    expect(db.prepare('SELECT count(*) FROM near').pluck().get()).toBe(2)
  }
  two.exec('DELETE FROM memories')
  await settle()
  expect(one.prepare('SELECT count(*) FROM near').pluck().get()).toBe(0)
})

test('a vector that an index does not take keeps its row out of the index only', async () => {
  const server = await startHub()
  const [one, two] = [openDatabase(':memory:', MEMORIES), openVectors()]
  const choice = { tables: { exclude: [PART] } }
  const [first, second] = [await connectAgent(server, 'one', choice), await connectAgent(server, 'two', choice)]
  remember(one, 'long', [1, 2, 3, 4])
  remember(one, 'x', [1, 0, 0])
  await first.sync(one)
  const { notices, quarantined } = await second.sync(two)
  expect(quarantined).toBe(0)
  expect(notices.join()).toMatch(/memories.*Dimension mismatch/)
  expect(two.prepare('SELECT slug FROM memories ORDER BY slug').pluck().all()).toEqual(['long', 'x'])
  expect(nearest(two, [1, 0, 0], 1)).toEqual([['x', 0]])
})
