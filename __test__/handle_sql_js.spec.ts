// What only sql.js does: databases that are exported and made anew, and statements that are left unfinished.

import initSqlJs, { type Database } from 'sql.js'

import { cleanup, connectAgent, rejection, startHub } from './support'

const NOTES = 'CREATE TABLE notes (id TEXT PRIMARY KEY, value)'

const RELEASES: Array<{ release: string; load: typeof initSqlJs }> = [
  { release: 'sql.js', load: initSqlJs },
  { release: 'sql.js 1.13', load: jest.requireActual('sql.js-1.13') },
]

function closedAfterwards(db: Database): Database {
  cleanup(() => db.close())
  return db
}

function ids(db: Database): unknown[] {
  return (db.exec('SELECT id FROM notes ORDER BY id')[0]?.values ?? []).flat()
}

describe.each(RELEASES)('$release', ({ load }) => {
  async function open(data?: Uint8Array): Promise<Database> {
    const SQL = await load()
    return closedAfterwards(new SQL.Database(data))
  }

  test('export() between two syncs', async () => {
    const hub = await connectAgent(await startHub(), 'agent')
    const db = await open()
    db.run(`${NOTES}; INSERT INTO notes VALUES ('a', 1)`)
    expect(await hub.sync(db)).toMatchObject({ pushed: 1 })
    for (const id of ['b', 'c']) {
      db.export()
      db.run('INSERT INTO notes VALUES (?, 2)', [id])
      expect(await hub.sync(db)).toMatchObject({ pushed: 1, pulled: 0 })
    }
  })

  test('export() in the middle of a sync', async () => {
    const server = await startHub()
    const [one, two] = [await connectAgent(server, 'one'), await connectAgent(server, 'two')]
    const [from, to] = [await open(), await open()]
    for (const db of [from, to]) db.run(NOTES)
    for (let i = 0; i < 2000; i++) from.run('INSERT INTO notes VALUES (?, ?)', [`row ${i}`, i])
    for (const [hub, db] of [[one, from], [two, to]] as const) {
      let syncing = true
      const sync = hub.sync(db).finally(() => {
        syncing = false
      })
      let exports = 0
      while (syncing) {
        await new Promise(setImmediate)
        if (exports < 50) db.export()
        exports += 1
      }
      await sync
      expect(exports).toBeGreaterThan(3)
    }
    expect(ids(to)).toEqual(ids(from))
  })

  test('a database made from an export goes on where the exported one was', async () => {
    const server = await startHub()
    const hub = await connectAgent(server, 'agent')
    const db = await open()
    db.run(`${NOTES}; INSERT INTO notes VALUES ('a', 1)`)
    await hub.sync(db)
    const copy = await open(db.export())
    db.close()
    copy.run("INSERT INTO notes VALUES ('b', 1)")
    expect(await hub.sync(copy)).toMatchObject({ pushed: 1, pulled: 0, conflicts: 0 })
  })

  test('a database made from an older export loses nothing, neither its own rows nor those since', async () => {
    const server = await startHub()
    const hub = await connectAgent(server, 'agent')
    const db = await open()
    db.run(`${NOTES}; INSERT INTO notes VALUES ('a', 1)`)
    await hub.sync(db)
    const older = db.export()
    db.run("INSERT INTO notes VALUES ('since', 1)")
    await hub.sync(db)
    const copy = await open(older)
    copy.run("INSERT INTO notes VALUES ('of the copy', 1)")
    await hub.sync(copy)
    await hub.sync(copy)
    expect(ids(copy)).toEqual(['a', 'of the copy', 'since'])
    db.run("INSERT INTO notes VALUES ('later', 1)")
    await hub.sync(db)
    await hub.sync(copy)
    const all = ['a', 'later', 'of the copy', 'since']
    expect([ids(db), ids(copy)]).toEqual([all, all])
    const other = await open()
    other.run(NOTES)
    await (await connectAgent(server, 'other')).sync(other)
    expect(ids(other)).toEqual(all)
  })

  test('a query that is left after its first row holds nothing up for good', async () => {
    const hub = await connectAgent(await startHub(), 'agent')
    const db = await open()
    db.run(`${NOTES}; INSERT INTO notes VALUES ('a', 1), ('b', 2)`)
    const statement = db.prepare('SELECT * FROM notes ORDER BY id')
    expect(statement.getAsObject([])).toEqual({ id: 'a', value: 1 })
    expect(await hub.sync(db)).toMatchObject({ pushed: 2 })
    expect(statement.step() && statement.get()).toEqual(['b', 2])
  })

  test('a write that is left unfinished is never pushed, nor undone', async () => {
    const hub = await connectAgent(await startHub(), 'agent', { requestTimeoutMs: 1500 })
    const db = await open()
    db.run(NOTES)
    const statement = db.prepare("INSERT INTO notes VALUES ('a', 1), ('b', 2) RETURNING id")
    statement.step()
    const error = await rejection(hub.sync(db))
    expect(error).toMatchObject({ code: 'ERR_FEDERATION_DATABASE' })
    expect(error.message).toContain('finish it')
    statement.free()
    expect(ids(db)).toEqual(['a', 'b'])
    expect(await hub.sync(db)).toMatchObject({ pushed: 2 })
  })
})
