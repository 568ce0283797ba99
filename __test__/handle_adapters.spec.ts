// The adapters themselves, in what a sync reaches seldom.

import Database from 'better-sqlite3'
import Libsql from 'libsql'
import initSqlJs, { type Database as SqlJsDatabase } from 'sql.js'

import { cleanup } from './support'

/** What native code uses of a handle. */
interface Surface {
  exec(sql: string): void
  prepare(sql: string): {
    reader: boolean
    all(...params: unknown[]): unknown[][]
    run(...params: unknown[]): { changes: number }
    raw(on: boolean): unknown
    safeIntegers(on: boolean): unknown
  }
}

const { handleOf } = jest.requireActual<{ handleOf(database: unknown): { surface: Surface } }>('../handles')

function query(surface: Surface, sql: string, ...params: unknown[]): unknown[][] {
  const statement = surface.prepare(sql)
  statement.raw(true)
  statement.safeIntegers(true)
  return statement.all(...params)
}

function thrown(work: () => unknown): { code?: string; message: string } {
  try {
    work()
  } catch (error) {
    return error as Error
  }
  throw new Error('expected an error')
}

async function sqlJs(): Promise<{ surface: Surface; db: SqlJsDatabase }> {
  const SQL = await initSqlJs()
  const db = new SQL.Database()
  cleanup(() => db.close())
  return { surface: handleOf(db).surface, db }
}

function libsql(): { surface: Surface; db: Libsql.Database } {
  const db = new Libsql(':memory:')
  return { surface: handleOf(db).surface, db }
}

const BOTH: Array<[string, () => Promise<{ surface: Surface; db: { close(): unknown } }>]> = [
  ['sql.js', sqlJs],
  ['libsql', async () => libsql()],
]

describe.each(BOTH)('%s', (_name, open) => {
  test('parameters are found among quotes and comments, with numbers and without', async () => {
    const { surface } = await open()
    surface.exec(`CREATE TABLE "a?" ("b?""?" , [c?], \`d?\`)`)
    surface.prepare('INSERT INTO "a?" VALUES (?, ?2, ?1) -- ?').run(1, 2n ** 40n)
    const sql = `SELECT "b?""?", [c?], \`d?\`, '?''?', ?, /* ? */ ?4, ?, ?2 FROM "a?" -- ?`
    expect(query(surface, sql, 7, 'x', null, 8n, -0)).toEqual([[1, 2n ** 40n, 1, "?'?", 7, 8n, -0, 'x']])
  })

  test('the one parameter that there is may be anything', async () => {
    const { surface } = await open()
    surface.exec('CREATE TABLE t (x)')
    for (const value of [null, Buffer.from('ab'), Buffer.alloc(0), 'a', 1.5]) {
      expect(surface.prepare('INSERT INTO t VALUES (?)').run(value)).toMatchObject({ changes: 1 })
      const sql = 'SELECT typeof(x), hex(x), hex(?1) FROM t WHERE x IS ?1 ORDER BY rowid DESC LIMIT 1'
      const type = value === null ? 'null' : typeof value === 'string' ? 'text' : value === 1.5 ? 'real' : 'blob'
      const [row] = query(surface, sql, value)
      expect(row?.[0]).toBe(type)
      expect(row?.[1]).toBe(row?.[2])
    }
  })

  test('a parameter has no affinity', async () => {
    const { surface } = await open()
    surface.exec(`CREATE TABLE t (x); INSERT INTO t VALUES ('5'), ('9007199254740993')`)
    const count = 'SELECT count(*) FROM t WHERE x = ?'
    for (const value of [5n, 5, 9007199254740993n]) expect(query(surface, count, value)).toEqual([[0n]])
    expect(query(surface, count, '5')).toEqual([[1n]])
  })

  test('text with NULs is found in any column, and blobs stay blobs', async () => {
    const { surface } = await open()
    const values = Array.from({ length: 70 }, (_, i) => (i % 3 === 0 ? `a\0${i}\u00e9` : i % 3 === 1 ? i : null))
    const sql = `SELECT ${values.map((_, i) => `?${i + 1}`).join()}, x'0041' LIMIT ?71`
    const [row = []] = query(surface, sql, ...values, 1n)
    expect(Buffer.from(row.pop() as Uint8Array).toString('hex')).toBe('0041')
    expect(row).toEqual(values)
  })

  test('errors have the codes that better-sqlite3 gives them', async () => {
    const { surface } = await open()
    surface.exec('CREATE TABLE t (a INTEGER UNIQUE NOT NULL CHECK (a > 0)) STRICT; INSERT INTO t (a) VALUES (1)')
    for (const value of ['1', 'NULL', '-1', "'x'"]) {
      expect(thrown(() => surface.exec(`INSERT INTO t (a) VALUES (${value})`)).code).toMatch(/^SQLITE_CONSTRAINT/)
      const prepared = surface.prepare(`INSERT INTO t (a) VALUES (${value})`)
      expect(thrown(() => prepared.run()).code).toMatch(/^SQLITE_CONSTRAINT/)
    }
    surface.exec('BEGIN')
    expect(thrown(() => surface.exec('BEGIN')).message).toBe('cannot start a transaction within a transaction')
    expect(thrown(() => surface.prepare('SELECT * FROM nowhere')).message).toBe('no such table: nowhere')
  })

  test('a closed handle says so, whatever is asked of it', async () => {
    const { surface, db } = await open()
    const [reads, writes] = [surface.prepare('SELECT 1'), surface.prepare('PRAGMA user_version = 1')]
    db.close()
    const asked = [
      () => surface.exec('BEGIN'),
      () => surface.exec('SELECT 1'),
      () => surface.prepare('SELECT 2'),
      () => reads.all(),
      () => writes.run(),
    ]
    for (const ask of asked) expect(thrown(ask).message).toBe('The database connection is not open')
  })
})

test('a better-sqlite3 handle goes to native code as it is, and others do not', async () => {
  class Memory extends Database {
    db = new Libsql(':memory:')
  }
  for (const db of [new Database(':memory:'), new Memory(':memory:')]) {
    expect(handleOf(db).surface).toBe(db)
    expect(handleOf({ db }).surface).toBe(db)
  }
  const { surface, db } = libsql()
  expect(surface).not.toBe(db)
})

test('sql.js: statements are let go, as it frees none by itself', async () => {
  const { surface, db } = await sqlJs()
  const prepare = jest.spyOn(db, 'prepare')
  const statements = Array.from({ length: 600 }, (_, i) => surface.prepare(`SELECT ${i}`))
  expect(statements.map((statement) => statement.all()[0]?.[0])).toEqual(statements.map((_, i) => BigInt(i)))
  const freed = prepare.mock.results.filter(({ value }) => {
    try {
      return !value.bind(null)
    } catch {
      return true
    }
  })
  expect(prepare.mock.results.length - freed.length).toBe(512)
})

test('libsql: a query of rows that are left unread holds nothing up for good', async () => {
  const { surface, db } = libsql()
  db.exec('CREATE TABLE t (x); INSERT INTO t VALUES (1), (2)')
  const many = 'WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i FROM n'
  const rows = db.prepare(many).iterate()
  rows.next()
  expect(thrown(() => surface.exec('BEGIN')).message).toBe('This database connection is busy executing a query')
  const clock = jest.spyOn(Date, 'now').mockReturnValue(Date.now() + 1000)
  cleanup(() => clock.mockRestore())
  surface.exec('BEGIN; COMMIT')
  expect([...rows]).toHaveLength(999)
})
