// One suite, run against every kind of handle that this version of Node.js has.

import { FederationHub, type FederationHubServer } from '..'
import { cleanup, connectAgent, rejection, startHub } from './support'
import { KINDS, REFERENCE, openPath, type Kind, type Opened } from './handle_kinds'
import { EXACT, VALUES, randomValues } from './handle_values'

const NOTES = 'CREATE TABLE notes (id TEXT PRIMARY KEY, value)'

function ids(db: Opened): unknown[] {
  return db.rows('SELECT id FROM notes ORDER BY id').flat()
}

/** Enough rows that no driver reads them all at once. */
function addMany(db: Opened, count = 1000): void {
  db.exec(
    `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${count})
     INSERT INTO notes SELECT 'many ' || i, i FROM n`,
  )
}

async function pair(
  kind: Pick<Kind, 'open'> | { open(): Promise<Opened> },
  schema = NOTES,
): Promise<{ one: Opened; two: Opened; sync(): Promise<void> }> {
  const server = await startHub()
  const [one, two] = [await kind.open(), await REFERENCE.open()]
  one.exec(schema)
  two.exec(schema)
  const [first, second] = [await connectAgent(server, 'one'), await connectAgent(server, 'two')]
  const sync = async (): Promise<void> => {
    for (const [hub, db] of [[first, one], [second, two], [first, one]] as const) {
      const { notices, ...report } = await hub.sync(db.target)
      expect(report).toMatchObject({ rejected: 0, quarantined: 0 })
      expect(notices.filter((notice) => !notice.startsWith('not shared: found'))).toEqual([])
    }
  }
  return { one, two, sync }
}

/** As long as a sync takes that waits for nothing. */
async function meanwhile(server: FederationHubServer): Promise<void> {
  const db = await REFERENCE.open()
  db.exec(`CREATE TABLE others (id TEXT PRIMARY KEY); INSERT INTO others VALUES ('a')`)
  const hub = await connectAgent(server, 'another')
  for (let sync = 0; sync < 3; sync++) await hub.sync(db.target)
}

test('no kind is left out', () => {
  const isNode20 = process.versions.node.startsWith('20.')
  const native = 'bun' in process.versions ? 'bun:sqlite' : isNode20 ? 'better-sqlite3' : 'node:sqlite'
  expect(KINDS.map((kind) => kind.name)).toEqual(expect.arrayContaining([native, 'libsql', 'sql.js']))
})

const ALL = [...KINDS, ...(REFERENCE.name === 'better-sqlite3' ? [{ name: 'a path', open: openPath }] : [])]

describe.each(ALL)('$name', (kind) => {
  test.each(['from it', 'to it'])('every value arrives exactly %s', async (direction) => {
    const { one, two, sync } = await pair(kind)
    const [from, to] = direction === 'from it' ? [one, two] : [two, one]
    const values = [...VALUES, ...randomValues(200)]
    for (const [name, sql] of values) from.exec(`INSERT INTO notes VALUES ('${name}', ${sql})`)
    await sync()
    expect(to.rows(EXACT)).toEqual(from.rows(EXACT))
    expect(to.rows(EXACT)).toHaveLength(values.length)
  })

  test('what a sync brings is found in an index that triggers keep', async () => {
    const { one, two, sync } = await pair(kind)
    const fts = ['fts5', 'fts4'].find((module) => {
      try {
        one.exec(`CREATE VIRTUAL TABLE probe USING ${module}(value); DROP TABLE probe`)
        return true
      } catch {
        return false
      }
    })
    // Those of FTS4 and FTS5 are written in the same way.
    one.exec(`CREATE TABLE logged (what);
      CREATE VIRTUAL TABLE found USING ${fts}(value);
      CREATE TRIGGER ai AFTER INSERT ON notes BEGIN INSERT INTO found(rowid, value) VALUES (new.rowid, new.value); END;
      CREATE TRIGGER ad AFTER DELETE ON notes BEGIN DELETE FROM found WHERE rowid = old.rowid; END;
      CREATE TRIGGER au AFTER UPDATE ON notes BEGIN UPDATE found SET value = new.value WHERE rowid = old.rowid; END;
      CREATE TRIGGER logs AFTER INSERT ON notes BEGIN INSERT INTO logged VALUES (new.id); END`)
    two.exec(`CREATE TABLE logged (what); INSERT INTO notes VALUES ('a', 'apples'), ('b', 'pears')`)
    await sync()
    const find = (word: string): unknown[] =>
      one.rows(`SELECT id FROM notes WHERE rowid IN (SELECT rowid FROM found WHERE found MATCH '${word}')`).flat()
    expect([find('apples'), find('pears')]).toEqual([['a'], ['b']])
    two.exec(`UPDATE notes SET value = 'quinces' WHERE id = 'a'; DELETE FROM notes WHERE id = 'b'`)
    await sync()
    expect([find('apples'), find('quinces'), find('pears')]).toEqual([[], ['a'], []])
    expect(one.rows('SELECT * FROM logged')).toEqual([])
  })

  test('a row over which an expression of its schema fails is set aside, and the others arrive', async () => {
    const server = await startHub()
    const [one, two] = [await kind.open(), await REFERENCE.open()]
    one.exec(`CREATE TABLE notes (id TEXT PRIMARY KEY, value);
      CREATE INDEX failing ON notes (json_extract(value, '$.kind'));
      CREATE TABLE sums (id TEXT PRIMARY KEY, value CHECK (abs(value) >= 0))`)
    two.exec(`${NOTES}; CREATE TABLE sums (id TEXT PRIMARY KEY, value)`)
    const [first, second] = [await connectAgent(server, 'one'), await connectAgent(server, 'two')]
    await first.sync(one.target)
    two.exec(`INSERT INTO notes VALUES ('bad', '{'), ('good', '{}');
      INSERT INTO sums VALUES ('bad', -9223372036854775808), ('good', -1)`)
    await second.sync(two.target)
    const report = await first.sync(one.target)
    expect(report.quarantined).toBe(2)
    const told = JSON.stringify(report.notices)
    expect(told).toMatch(/notes are set aside: .*malformed JSON/)
    expect(told).toMatch(/sums are set aside: .*integer overflow/)
    expect([ids(one), one.rows('SELECT id FROM sums')]).toEqual([['good'], [['good']]])
    // Once it is mended it arrives, too.
    two.exec(`UPDATE notes SET value = '[]'; UPDATE sums SET value = 0`)
    await second.sync(two.target)
    expect(await first.sync(one.target)).toMatchObject({ quarantined: 0 })
    expect(ids(one)).toEqual(['bad', 'good'])
  })

  test('typed columns keep what they hold', async () => {
    const schema = `
      CREATE TABLE notes (id TEXT PRIMARY KEY, i INTEGER, r REAL, t TEXT, b BLOB, n NUMERIC) WITHOUT ROWID;
      CREATE TABLE strict_notes (id TEXT PRIMARY KEY, i INTEGER, r REAL, t TEXT, b BLOB, value ANY) STRICT`
    const { one, two, sync } = await pair(kind, schema)
    one.exec(`INSERT INTO notes VALUES ('one', '5', 5, 5, 5, '5.0'), ('more', 'x', 'x', x'00', '5', 1e300)`)
    two.exec(`INSERT INTO strict_notes VALUES ('two', 9007199254740993, 1, '5', x'', 1.0)`)
    await sync()
    const all = `SELECT id, typeof(i), i, typeof(r), r, typeof(t), hex(t), typeof(b), hex(b), typeof(n), n FROM notes
      ORDER BY id`
    expect(one.rows(all)).toEqual(two.rows(all))
    expect(one.rows('SELECT typeof(r), typeof(value), CAST(i AS TEXT), hex(b) FROM strict_notes')).toEqual([
      ['real', 'real', '9007199254740993', ''],
    ])
  })

  test('inserts, updates and deletes go both ways', async () => {
    const { one, two, sync } = await pair(kind)
    one.exec("INSERT INTO notes VALUES ('a', 1), ('b', 1)")
    two.exec("INSERT INTO notes VALUES ('c', 1), ('d', 1)")
    await sync()
    expect([ids(one), ids(two)]).toEqual([['a', 'b', 'c', 'd'], ['a', 'b', 'c', 'd']])
    one.exec("UPDATE notes SET value = 2 WHERE id = 'c'; DELETE FROM notes WHERE id = 'd'")
    two.exec("UPDATE notes SET value = 2 WHERE id = 'a'; DELETE FROM notes WHERE id = 'b'")
    await sync()
    const expected = [['a', 2], ['c', 2]]
    expect([one, two].map((db) => db.rows('SELECT * FROM notes ORDER BY id'))).toEqual([expected, expected])
  })

  test('integer keys are local, and foreign keys follow them', async () => {
    const schema = `PRAGMA foreign_keys = ON;
      CREATE TABLE parents (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT);
      CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES parents(id), name TEXT)`
    const { one, two, sync } = await pair(kind, schema)
    for (const [db, name] of [[one, 'one'], [two, 'two']] as const) {
      db.exec(`INSERT INTO parents VALUES (1, '${name}'); INSERT INTO children VALUES (1, 1, 'of ${name}')`)
    }
    await sync()
    for (const db of [one, two]) {
      expect(
        db.rows('SELECT c.name, p.name FROM children c JOIN parents p ON p.id = c.parent ORDER BY c.name'),
      ).toEqual([['of one', 'one'], ['of two', 'two']])
      expect(db.rows('SELECT id FROM parents ORDER BY id')).toEqual([[1], [2]])
      expect(db.rows('PRAGMA foreign_key_check')).toEqual([])
      expect(db.rows('PRAGMA integrity_check')).toEqual([['ok']])
    }
  })

  test('triggers fire for local writes only, and stay as they are', async () => {
    const schema = `CREATE TABLE notes (id TEXT PRIMARY KEY, value, touched INTEGER DEFAULT 0);
      CREATE TABLE audit (id INTEGER PRIMARY KEY, note TEXT);
      CREATE TRIGGER touch AFTER INSERT ON notes BEGIN
        UPDATE notes SET touched = touched + 1 WHERE id = NEW.id;
        INSERT INTO audit (note) VALUES (NEW.id);
      END`
    const { one, two, sync } = await pair(kind, schema)
    const triggers = "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name = 'touch'"
    const before = one.rows(triggers)
    one.exec("INSERT INTO notes (id) VALUES ('one')")
    two.exec("INSERT INTO notes (id) VALUES ('two')")
    await sync()
    for (const db of [one, two]) {
      expect(db.rows('SELECT id, touched FROM notes ORDER BY id')).toEqual([['one', 1], ['two', 1]])
      expect(db.rows('SELECT note FROM audit ORDER BY note')).toEqual([['one'], ['two']])
      expect(db.rows(triggers)).toEqual(before)
    }
  })

  test('the schema may change between two syncs', async () => {
    const { one, two, sync } = await pair(kind)
    one.exec("INSERT INTO notes VALUES ('a', 1)")
    await sync()
    const change = 'ALTER TABLE notes ADD COLUMN more DEFAULT 7; CREATE TABLE t (id TEXT PRIMARY KEY)'
    for (const db of [one, two]) db.exec(change)
    one.exec("UPDATE notes SET more = 8; INSERT INTO t VALUES ('t')")
    await sync()
    expect(two.rows('SELECT * FROM notes')).toEqual([['a', 1, 8]])
    expect(two.rows('SELECT * FROM t')).toEqual([['t']])
  })

  test('a row that a constraint refuses here is set aside, and the others arrive', async () => {
    const server = await startHub()
    const [one, two] = [await kind.open(), await REFERENCE.open()]
    one.exec('CREATE TABLE notes (id TEXT PRIMARY KEY, value CHECK (value < 10))')
    two.exec(`${NOTES}; INSERT INTO notes VALUES ('a', 1), ('b', 11), ('c', 3)`)
    await (await connectAgent(server, 'two')).sync(two.target)
    const hub = await connectAgent(server, 'one')
    expect(await hub.sync(one.target)).toMatchObject({ pulled: 2, quarantined: 1 })
    expect(ids(one)).toEqual(['a', 'c'])
  })

  test('detach() leaves nothing behind', async () => {
    const hub = await connectAgent(await startHub(), 'agent')
    const db = await kind.open()
    db.exec(`${NOTES}; CREATE TABLE children (id INTEGER PRIMARY KEY AUTOINCREMENT, note TEXT REFERENCES notes)`)
    db.exec("INSERT INTO notes VALUES ('a', 1.0)")
    const schema = 'SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name'
    const before = db.rows(schema)
    await hub.sync(db.target)
    expect(db.rows(schema)).not.toEqual(before)
    await FederationHub.detach(db.target)
    expect(db.rows(schema)).toEqual(before)
    expect(db.rows('SELECT id, typeof(value) FROM notes')).toEqual([['a', 'real']])
  })

  test('many rows of many sizes', async () => {
    const { one, two, sync } = await pair(kind)
    addMany(one)
    one.exec('UPDATE notes SET value = randomblob(value % 97)')
    await sync()
    const all = 'SELECT id, hex(value) FROM notes ORDER BY id'
    expect(two.rows(all)).toEqual(one.rows(all))
    expect(two.rows('SELECT count(*) FROM notes')).toEqual([[1000]])
  })
})

describe.each(KINDS)('$name, an open handle', (kind) => {
  test.each(['COMMIT', 'ROLLBACK'])("the caller's transaction is waited for, up to its %s", async (end) => {
    const server = await startHub()
    const hub = await connectAgent(server, 'agent')
    const db = await kind.open()
    db.exec(NOTES)
    await hub.sync(db.target)
    db.exec("BEGIN; INSERT INTO notes VALUES ('within', 1)")
    let settled = false
    const sync = hub.sync(db.target).finally(() => {
      settled = true
    })
    await meanwhile(server)
    expect(settled).toBe(false)
    db.exec(end)
    expect(await sync).toMatchObject({ pushed: end === 'COMMIT' ? 1 : 0 })
  })

  test('a transaction that does not end makes the sync reject, and is left alone', async () => {
    const hub = await connectAgent(await startHub(), 'agent', { requestTimeoutMs: 200 })
    const db = await kind.open()
    db.exec(`${NOTES}; BEGIN; INSERT INTO notes VALUES ('within', 1)`)
    const error = await rejection(hub.sync(db.target))
    expect(error).toMatchObject({ code: 'ERR_FEDERATION_DATABASE' })
    expect(error.message).toContain('a transaction of the application is open on this handle')
    db.exec('COMMIT')
    expect(await hub.sync(db.target)).toMatchObject({ pushed: 1 })
  })

  test('a statement that is being read is waited for', async () => {
    // Some packages' unfinished statements are waited for only so long; here, time stands still.
    const clock = jest.spyOn(Date, 'now').mockReturnValue(Date.now())
    cleanup(() => clock.mockRestore())
    const server = await startHub()
    const hub = await connectAgent(server, 'agent')
    const db = await kind.open()
    db.exec(NOTES)
    addMany(db)
    const finish = db.begin('SELECT * FROM notes')
    let settled = false
    const sync = hub.sync(db.target).finally(() => {
      settled = true
    })
    await meanwhile(server)
    expect(settled).toBe(false)
    expect(finish()).toBe(1000)
    expect(await sync).toMatchObject({ pushed: 1000 })
  })

  test('a lock that another connection holds is waited for', async () => {
    const server = await startHub()
    const hub = await connectAgent(server, 'agent')
    const db = await kind.open()
    const other = db.another?.()
    if (other === undefined) return
    db.exec(`${NOTES}; PRAGMA busy_timeout = 0; INSERT INTO notes VALUES ('a', 1)`)
    other.exec("BEGIN IMMEDIATE; INSERT INTO notes VALUES ('b', 1)")
    let settled = false
    const sync = hub.sync(db.target).finally(() => {
      settled = true
    })
    await meanwhile(server)
    expect(settled).toBe(false)
    other.exec('COMMIT')
    expect(await sync).toMatchObject({ pushed: 2 })
  })

  test('a handle that is closed in mid-sync makes it reject', async () => {
    const hub = await connectAgent(await startHub(), 'agent')
    const db = await kind.open()
    db.exec(NOTES)
    await hub.sync(db.target)
    db.exec("INSERT INTO notes VALUES ('a', 1)")
    const sync = hub.sync(db.target)
    db.close()
    const error = await rejection(sync)
    expect(error).toMatchObject({ code: 'ERR_FEDERATION_DATABASE' })
    expect(error.message).toContain('not open')
    expect(await rejection(hub.sync(db.target))).toMatchObject({ code: 'ERR_FEDERATION_DATABASE' })
  })

  test('what was noted survives reopening', async () => {
    const server = await startHub()
    const hub = await connectAgent(server, 'agent')
    const db = await kind.open()
    db.exec(`${NOTES}; INSERT INTO notes VALUES ('a', 1)`)
    expect(await hub.sync(db.target)).toMatchObject({ pushed: 1 })
    db.exec("INSERT INTO notes VALUES ('b', 1)")
    const again = db.reopened()
    expect(await hub.sync(again.target)).toMatchObject({ pushed: 1, pulled: 0, conflicts: 0 })
    again.exec("UPDATE notes SET value = 2 WHERE id = 'a'")
    expect(await hub.sync(again.target)).toMatchObject({ pushed: 1 })
  })

  test('two instances on one handle take turns, one of them through an object that holds it', async () => {
    const server = await startHub()
    const [one, two] = [await connectAgent(server, 'one'), await connectAgent(server, 'two')]
    const db = await kind.open()
    db.exec(`${NOTES}; INSERT INTO notes VALUES ('a', 1)`)
    const held = { db: db.target }
    const reports = await Promise.all([one.sync(db.target), two.sync(held), one.sync(held)])
    expect(reports.map((report) => report.pushed).reduce((a, b) => a + b)).toBe(1)
    expect(db.rows("SELECT count(*) FROM sqlite_schema WHERE name = 'notes'")).toEqual([[1]])
  })

  test('is left as it was: pragmas, and nothing but our tables', async () => {
    const hub = await connectAgent(await startHub(), 'agent')
    const db = await kind.open()
    db.exec(`${NOTES}; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 1234`)
    await hub.sync(db.target)
    expect(db.rows('PRAGMA foreign_keys')).toEqual([[1]])
    expect(db.rows('PRAGMA busy_timeout')).toEqual([[1234]])
    const tables = db.rows("SELECT name FROM sqlite_schema WHERE type = 'table'").flat() as string[]
    expect(tables.filter((name) => !name.startsWith('_federation_'))).toEqual(['notes'])
  })
})
