// Databases as applications hold them: values, transactions, iterators, files.

import fs from 'node:fs'
import path from 'node:path'

import Database from 'better-sqlite3'

import { cleanup, connectAgent, openDatabase, rejection, startHub, temporaryFile, type Handle } from './support'

const NOTES = 'CREATE TABLE notes (id TEXT PRIMARY KEY, value)'

function add(db: Handle, id: string, value: unknown = null): void {
  db.prepare('INSERT INTO notes VALUES (?, ?)').run(id, value)
}

function ids(db: Handle): unknown[] {
  return db.prepare('SELECT id FROM notes ORDER BY id').pluck().all()
}

const VALUES: Array<[string, string]> = [
  ['null', 'NULL'],
  ['0', '0'],
  ['the least integer', '-9223372036854775808'],
  ['the greatest integer', '9223372036854775807'],
  ['an integer that no double holds', '9007199254740993'],
  ['a double that is whole', '1.0'],
  ['minus zero', '-0.0'],
  ['the least double', '5e-324'],
  ['infinity', '9e999'],
  ['minus infinity', '-9e999'],
  ['empty text', "''"],
  ['text with NULs', "'a' || char(0) || 'b'"],
  ['astral text', "'\u{1F980}\u{10FFFF}'"],
  ['long text', "replace(hex(zeroblob(50000)), '0', 'x')"],
  ['an empty blob', "x''"],
  ['a blob that looks like text', "x'78'"],
  ['a blob of a megabyte', 'randomblob(1000000)'],
]

describe('values', () => {
  test('arrive as SQLite stores them', async () => {
    const server = await startHub()
    const [from, to] = [openDatabase(':memory:', NOTES), openDatabase(':memory:', NOTES)]
    for (const [name, sql] of VALUES) from.exec(`INSERT INTO notes VALUES ('${name}', ${sql})`)
    const report = await (await connectAgent(server, 'from')).sync(from)
    expect(report).toMatchObject({ pushed: VALUES.length, rejected: 0, notices: [] })
    await (await connectAgent(server, 'to')).sync(to)
    // quote() tells 1 from 1.0, text from a blob, and 0.0 from -0.0; it stops at a NUL, so the bytes come too.
    const stored = (db: Handle): unknown =>
      db.prepare('SELECT id, typeof(value), quote(value), hex(CAST(value AS BLOB)) FROM notes ORDER BY id').raw().all()
    expect(stored(to)).toEqual(stored(from))
  })

  test('the defaults that an application has set on its handle change nothing', async () => {
    const server = await startHub()
    const [from, to] = [openDatabase(':memory:', NOTES), openDatabase(':memory:', NOTES)]
    from.defaultSafeIntegers(true)
    add(from, 'integer', 7n)
    add(from, 'double', 7)
    await (await connectAgent(server, 'from')).sync(from)
    await (await connectAgent(server, 'to')).sync(to)
    expect(to.prepare('SELECT id, typeof(value) FROM notes ORDER BY id').raw().all()).toEqual([
      ['double', 'real'],
      ['integer', 'integer'],
    ])
  })

  test('many rows of many sizes', async () => {
    const server = await startHub()
    const [from, to] = [openDatabase(':memory:', NOTES), openDatabase(':memory:', NOTES)]
    from.transaction(() => {
      for (let i = 0; i < 3000; i++) add(from, `row ${i}`, Buffer.alloc(i % 97, i))
    })()
    await (await connectAgent(server, 'from')).sync(from)
    expect(await (await connectAgent(server, 'to')).sync(to)).toMatchObject({ pulled: 3000 })
    const all = 'SELECT id, hex(value) FROM notes ORDER BY id'
    expect(to.prepare(all).raw().all()).toEqual(from.prepare(all).raw().all())
  })
})

test('a large sync lets the event loop turn between its parts', async () => {
  const hub = await connectAgent(await startHub(), 'writer')
  let turn = 0
  const begun: number[] = []
  const db = new Database(':memory:', {
    verbose: (sql) => {
      if (String(sql).startsWith('BEGIN')) begun.push(turn)
    },
  })
  cleanup(() => db.close())
  db.exec(NOTES)
  const insert = db.prepare('INSERT INTO notes VALUES (?, ?)')
  for (let i = 0; i < 3000; i++) insert.run(`row ${i}`, i)
  let syncing = true
  const count = (): void => {
    turn += 1
    if (syncing) setImmediate(count)
  }
  setImmediate(count)
  await hub.sync(db)
  syncing = false
  // Parts of at most 250 rows, and no two of them in one turn of the event loop.
  expect(begun.length).toBeGreaterThanOrEqual(12)
  expect(new Set(begun).size).toBe(begun.length)
})

describe("the caller's open transaction", () => {
  test.each(['COMMIT', 'ROLLBACK'])('is waited for, and none of it is pushed before its %s', async (end) => {
    const server = await startHub()
    const hub = await connectAgent(server, 'writer')
    const db = openDatabase(':memory:', NOTES)
    await hub.sync(db)
    db.exec('BEGIN')
    add(db, 'within')
    let settled = false
    const sync = hub.sync(db).finally(() => {
      settled = true
    })
    const other = openDatabase(':memory:', NOTES)
    await (await connectAgent(server, 'other')).sync(other)
    expect(ids(other)).toEqual([])
    expect(settled).toBe(false)
    db.exec(end)
    expect(await sync).toMatchObject({ pushed: end === 'COMMIT' ? 1 : 0 })
  })

  test('that does not end makes the sync reject, and is left alone', async () => {
    const hub = await connectAgent(await startHub(), 'writer', { requestTimeoutMs: 200 })
    const db = openDatabase(':memory:', NOTES)
    db.exec('BEGIN')
    add(db, 'within')
    const error = await rejection(hub.sync(db))
    expect(error.code).toMatch(/^ERR_FEDERATION_(BUSY|DATABASE)$/)
    expect(error.message).toContain('transaction')
    expect(db.inTransaction).toBe(true)
    db.exec('COMMIT')
    expect(await hub.sync(db)).toMatchObject({ pushed: 1 })
  })
})

describe('a handle', () => {
  test('with an iterator open is waited for', async () => {
    const hub = await connectAgent(await startHub(), 'agent')
    const db = openDatabase(':memory:', `${NOTES}; INSERT INTO notes VALUES ('a', 1), ('b', 2)`)
    const iterator = db.prepare('SELECT * FROM notes').iterate()
    iterator.next()
    const sync = hub.sync(db)
    await new Promise(setImmediate)
    expect([...iterator]).toHaveLength(1)
    expect(await sync).toMatchObject({ pushed: 2 })
  })

  test('is worked on in one turn within the call, however much there is to send', async () => {
    const hub = await connectAgent(await startHub(), 'agent')
    const db = openDatabase(':memory:', NOTES)
    await hub.sync(db)
    for (let i = 0; i < 1000; i++) add(db, String(i))
    const exec = jest.spyOn(db, 'exec')
    const begun = (): number => exec.mock.calls.filter(([sql]) => sql.startsWith('BEGIN')).length
    const sync = hub.sync(db)
    expect(begun()).toBe(1)
    expect(await sync).toMatchObject({ pushed: 1000 })
    expect(begun()).toBeGreaterThan(4)
  })

  test('that is closed in mid-sync makes it reject', async () => {
    const hub = await connectAgent(await startHub(), 'agent')
    const db = openDatabase(':memory:', NOTES)
    const sync = hub.sync(db)
    db.close()
    expect(await rejection(sync)).toMatchObject({ code: 'ERR_FEDERATION_DATABASE' })
  })

  test('can be synced by two instances at once: they take turns', async () => {
    const server = await startHub()
    const [one, two] = [await connectAgent(server, 'one'), await connectAgent(server, 'two')]
    const db = openDatabase(':memory:', `${NOTES}; INSERT INTO notes VALUES ('a', 1)`)
    const reports = await Promise.all([one.sync(db), two.sync(db), one.sync(db)])
    expect(reports.map((report) => report.pushed).reduce((a, b) => a + b)).toBe(1)
  })

  test('is left as it was: pragmas, and nothing but our tables', async () => {
    const hub = await connectAgent(await startHub(), 'agent')
    const db = openDatabase(':memory:', NOTES)
    db.pragma('busy_timeout = 1234')
    db.pragma('foreign_keys = ON')
    await hub.sync(db)
    expect(db.pragma('busy_timeout', { simple: true })).toBe(1234)
    expect(db.pragma('foreign_keys', { simple: true })).toBe(1)
    const tables = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").pluck().all() as string[]
    expect(tables.filter((name) => !name.startsWith('_federation_'))).toEqual(['notes'])
  })
})

describe('a path', () => {
  test('is opened, synced and closed', async () => {
    const server = await startHub()
    const file = temporaryFile()
    const setUp = openDatabase(file, `${NOTES}; INSERT INTO notes VALUES ('a', 1)`)
    setUp.close()
    const hub = await connectAgent(server, 'file')
    expect(await hub.sync(file)).toMatchObject({ pushed: 1 })
    const writer = await connectAgent(server, 'other')
    await writer.sync(openDatabase(':memory:', `${NOTES}; INSERT INTO notes VALUES ('b', 2)`))
    const both = await Promise.all([hub.sync(file), hub.sync(path.join(path.dirname(file), '.', 'agent.db'))])
    expect(both.map((report) => report.pulled).reduce((a, b) => a + b)).toBe(1)
    expect(isOpenHere(file)).toBe(false)
    expect(ids(openDatabase(file))).toEqual(['a', 'b'])
  })

  test('that this process has open is refused, with what to do', async () => {
    const hub = await connectAgent(await startHub(), 'agent')
    const file = temporaryFile()
    const db = openDatabase(file, NOTES)
    const error = await rejection(hub.sync(file))
    expect(error).toMatchObject({ code: 'ERR_FEDERATION_DATABASE' })
    expect(error.message).toContain('handle')
    db.close()
    await hub.sync(file)
  })

  test('that names no file is refused', async () => {
    const hub = await connectAgent(await startHub(), 'agent')
    expect((await rejection(hub.sync(':memory:'))).message).toContain('handle')
    const error = await rejection(hub.sync('/nowhere/agent.db'))
    expect(error).toMatchObject({ code: 'ERR_FEDERATION_DATABASE' })
    expect(error.message).toContain('/nowhere/agent.db')
  })
})

/** Whether this process has the file open; only Linux can tell. */
function isOpenHere(file: string): boolean {
  if (!fs.existsSync('/proc/self/fd')) return false
  return fs.readdirSync('/proc/self/fd').some((descriptor) => {
    try {
      return fs.realpathSync(`/proc/self/fd/${descriptor}`) === fs.realpathSync(file)
    } catch {
      return false
    }
  })
}
