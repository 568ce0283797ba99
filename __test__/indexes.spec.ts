// Indexes that extensions and other builds of SQLite keep in ordinary tables: sqlite-vec's, and libsql's own.


import Database from 'better-sqlite3'
import Libsql from 'libsql'
import * as sqliteVec from 'sqlite-vec'

import { cleanup, connectAgent, openDatabase, startHub, temporaryFile, type Handle } from './support'

const NOTES = 'CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT)'
const VECTORS = `CREATE VIRTUAL TABLE vectors USING vec0(
  embedding float[3], year integer, title text, +remark text, topic integer partition key)`

function withVectors(file: string, vector: number[]): Handle {
  const db = new Database(file)
  cleanup(() => db.close())
  sqliteVec.load(db)
  db.exec(`${NOTES}; ${VECTORS}`)
  db.prepare('INSERT INTO vectors (rowid, embedding, year, title, remark, topic) VALUES (1, ?, 1, ?, ?, 5)').run(
    new Float32Array(vector),
    'a title that is longer than twelve bytes',
    'remark',
  )
  return db
}

function vectors(db: Handle): unknown[] {
  return db.prepare('SELECT vec_to_json(embedding) FROM vectors').pluck().all()
}

function tables(db: Handle): unknown[] {
  const named = "SELECT name FROM sqlite_master WHERE name NOT LIKE '\\_federation%' ESCAPE '\\' AND sql LIKE 'CREATE TABLE%'"
  return db.prepare(`${named} ORDER BY name`).pluck().all()
}

describe('sqlite-vec', () => {
  test('each agent keeps its own index, with the extension loaded and without', async () => {
    const server = await startHub()
    const [hubA, hubB] = [await connectAgent(server, 'a'), await connectAgent(server, 'b')]
    const file = temporaryFile()
    const [a, b] = [withVectors(file, [1, 2, 3]), withVectors(':memory:', [7, 8, 9])]
    a.prepare("INSERT INTO notes VALUES ('a', 'of a')").run()
    for (let round = 0; round < 2; round += 1) {
      await hubA.sync(a)
      await hubB.sync(b)
    }
    expect(vectors(a)).toEqual(['[1.000000,2.000000,3.000000]'])
    expect(vectors(b)).toEqual(['[7.000000,8.000000,9.000000]'])
    expect(b.prepare('SELECT body FROM notes').pluck().all()).toEqual(['of a'])

    // By its path the file is opened by an SQLite that knows no vec0.
    a.close()
    b.prepare("INSERT INTO notes VALUES ('b', 'of b')").run()
    await hubB.sync(b)
    const report = await hubA.sync(file)
    expect(report).toMatchObject({ pulled: 1, quarantined: 0 })
    expect(report.notices.join()).toContain('no such module: vec0')
    await hubB.sync(b)
    expect(vectors(b)).toEqual(['[7.000000,8.000000,9.000000]'])

    const empty = openDatabase()
    await (await connectAgent(server, 'c')).sync(empty)
    expect(tables(empty)).toEqual(['notes'])
    const again = new Database(file)
    cleanup(() => again.close())
    sqliteVec.load(again)
    expect(vectors(again)).toEqual(['[1.000000,2.000000,3.000000]'])
    expect(again.prepare('SELECT count(*) FROM notes').pluck().get()).toBe(2)
  })
})

describe("libsql's vector index", () => {
  const SCHEMA = `
    CREATE TABLE facts (id TEXT PRIMARY KEY, embedding F32_BLOB(3));
    CREATE INDEX facts_by_vector ON facts (libsql_vector_idx(embedding))`

  function withFacts(file: string, id: string, vector: string): InstanceType<typeof Libsql> {
    const db = new Libsql(file)
    cleanup(() => db.close())
    db.exec(SCHEMA)
    db.exec(`INSERT INTO facts VALUES ('${id}', vector('${vector}'))`)
    return db
  }

  function nearest(db: InstanceType<typeof Libsql>, vector: string): unknown[] {
    const found = `SELECT facts.id FROM vector_top_k('facts_by_vector', vector('${vector}'), 5) AS top
      JOIN facts ON facts.rowid = top.id`
    return (db.prepare(found).all() as Array<{ id: string }>).map((row) => row.id).sort()
  }

  test('is kept by each agent for itself, and finds what others wrote', async () => {
    const server = await startHub()
    const [hubA, hubB] = [await connectAgent(server, 'a'), await connectAgent(server, 'b')]
    const [a, b] = [withFacts(':memory:', 'a', '[1,2,3]'), withFacts(':memory:', 'b', '[3,2,1]')]
    for (let round = 0; round < 2; round += 1) {
      await hubA.sync(a)
      await hubB.sync(b)
    }
    for (const db of [a, b]) expect(nearest(db, '[1,2,3]')).toEqual(['a', 'b'])
    a.exec("UPDATE facts SET embedding = vector('[9,9,9]') WHERE id = 'b'; DELETE FROM facts WHERE id = 'a'")
    await hubA.sync(a)
    await hubB.sync(b)
    for (const db of [a, b]) expect(nearest(db, '[1,2,3]')).toEqual(['b'])

    // Another SQLite knows no such index, and gets the table with its vectors.
    const plain = openDatabase()
    const report = await (await connectAgent(server, 'c')).sync(plain)
    expect(tables(plain)).toEqual(['facts'])
    expect(plain.prepare('SELECT embedding FROM facts').pluck().get()).toEqual(
      Buffer.from(new Float32Array([9, 9, 9]).buffer),
    )
    expect(report.notices.join()).toContain('libsql_vector_idx')
    const newcomer = new Libsql(':memory:')
    cleanup(() => newcomer.close())
    await (await connectAgent(server, 'd')).sync(newcomer)
    expect(nearest(newcomer, '[1,2,3]')).toEqual(['b'])
  })

  test('does not stop the other tables where nobody knows its function', async () => {
    const server = await startHub()
    const [hubA, hubB] = [await connectAgent(server, 'a'), await connectAgent(server, 'b')]
    const file = temporaryFile()
    const a = withFacts(file, 'a', '[1,2,3]')
    a.exec(NOTES)
    a.close()
    await hubA.sync(file)
    const b = openDatabase()
    await hubB.sync(b)
    b.exec("INSERT INTO notes VALUES ('b', 'of b'); INSERT INTO facts VALUES ('b', x'000000000000000000000000')")
    await hubB.sync(b)
    const report = await hubA.sync(file)
    expect(report).toMatchObject({ pulled: 1, quarantined: 1 })
    const again = new Libsql(file)
    cleanup(() => again.close())
    b.exec("UPDATE notes SET body = 'edited'")
    await hubB.sync(b)
    expect(await hubA.sync(again)).toMatchObject({ pulled: 2, quarantined: 0 })
    expect(nearest(again, '[1,2,3]')).toEqual(['a', 'b'])
  })
})
