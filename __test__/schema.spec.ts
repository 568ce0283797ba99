// What applications do to their schema, and how a database is set free.

import fs from 'node:fs'

import { FederationHub } from '..'
import { cleanup, connectAgent, openDatabase, rejection, startHub, temporaryFile, type Handle } from './support'

const NOTES = `
  CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT, kind TEXT, touched INTEGER DEFAULT 0);
  CREATE UNIQUE INDEX notes_by_title ON notes (kind, lower(title)) WHERE kind IS NOT NULL;
  CREATE TABLE tasks (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT);
  CREATE TRIGGER touch AFTER UPDATE OF title ON notes BEGIN UPDATE notes SET touched = 1 WHERE id = NEW.id; END`

/** All that a database holds: its schema, and how far AUTOINCREMENT has come. */
function schema(db: Handle): unknown[] {
  return [
    ...db.prepare('SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name').raw().all(),
    ...db.prepare('SELECT * FROM sqlite_sequence ORDER BY name').raw().all(),
  ]
}

function rows(db: Handle, table = 'notes'): unknown[] {
  return db.prepare(`SELECT * FROM ${table} ORDER BY id`).all()
}

function add(db: Handle, id: string, title: string): void {
  db.prepare("INSERT INTO notes (id, title, kind) VALUES (?, ?, 'x')").run(id, title)
  db.prepare('INSERT INTO tasks (title) VALUES (?)').run(title)
}

describe('detach', () => {
  test('leaves a database that equals one that never synced, for a handle and for a path', async () => {
    const server = await startHub()
    const never = openDatabase(':memory:', NOTES)
    add(never, 'a', 'one')
    for (const kind of ['handle', 'path']) {
      const file = temporaryFile()
      const db = openDatabase(file, NOTES)
      add(db, 'a', 'one')
      await (await connectAgent(server, kind)).sync(db)
      expect(schema(db)).not.toEqual(schema(never))
      if (kind === 'handle') {
        await FederationHub.detach(db)
        expect(schema(db)).toEqual(schema(never))
      } else {
        db.close()
        await FederationHub.detach(file)
      }
      const after = openDatabase(file)
      expect(schema(after)).toEqual(schema(never))
      expect(rows(after)).toEqual(rows(never))
    }
  })

  test('waits for the running sync, and the next sync makes a new replica of the database', async () => {
    const server = await startHub()
    const [hub, other] = [await connectAgent(server, 'one'), await connectAgent(server, 'two')]
    const [db, far] = [openDatabase(':memory:', NOTES), openDatabase(':memory:', NOTES)]
    for (let i = 0; i < 2000; i += 1) add(db, `n${i}`, `title ${i}`)
    const [report] = await Promise.all([hub.sync(db), FederationHub.detach(db)])
    expect(report.pushed).toBe(4000)
    expect(schema(db).filter((row) => JSON.stringify(row).includes('_federation_'))).toEqual([])
    db.exec("DELETE FROM notes; DELETE FROM tasks; DELETE FROM sqlite_sequence; INSERT INTO notes (id) VALUES ('new')")
    await hub.sync(db)
    expect(db.prepare('SELECT count(*) FROM notes').pluck().get()).toBe(2001)
    await other.sync(far)
    expect(rows(far)).toEqual(rows(db))
  })

  test('says what is wrong inside a transaction, without a file, and without a database', async () => {
    const server = await startHub()
    const db = openDatabase(':memory:', NOTES)
    await (await connectAgent(server, 'one')).sync(db)
    db.exec('BEGIN')
    expect(await rejection(FederationHub.detach(db))).toMatchObject({
      code: 'ERR_FEDERATION_DATABASE',
      message: expect.stringContaining('COMMIT or ROLLBACK it'),
    })
    db.exec('ROLLBACK')
    const missing = temporaryFile()
    expect((await rejection(FederationHub.detach(missing))).message).toContain('there is no database')
    expect(fs.existsSync(missing)).toBe(false)
    const error = await rejection(FederationHub.detach(7 as unknown as string))
    expect(error.code).toBe('ERR_FEDERATION_DATABASE')
  })
})

describe('migrate', () => {
  test('lets through what capture stands in the way of, and finds what was written meanwhile', async () => {
    const server = await startHub()
    const [hub, other] = [await connectAgent(server, 'one'), await connectAgent(server, 'two')]
    const [db, far] = [openDatabase(':memory:', NOTES), openDatabase(':memory:', NOTES)]
    add(db, 'a', 'one')
    add(db, 'b', 'two')
    await hub.sync(db)
    await other.sync(far)
    db.exec('DROP INDEX notes_by_title')
    expect(() => db.exec('ALTER TABLE notes DROP COLUMN kind')).toThrow('FederationHub.migrate')
    const outcome = await FederationHub.migrate(db, async (handle) => {
      expect(handle).toBe(db)
      handle.exec('ALTER TABLE notes DROP COLUMN kind')
      await new Promise((resolve) => setTimeout(resolve, 5))
      handle.exec("UPDATE notes SET title = 'uno' WHERE id = 'a'; DELETE FROM notes WHERE id = 'b'")
      return 'done'
    })
    expect(outcome).toBe('done')
    expect((await hub.sync(db)).pushed).toBe(2)
    await other.sync(far)
    const query = 'SELECT id, title, touched FROM notes'
    expect(far.prepare(query).all()).toEqual([{ id: 'a', title: 'uno', touched: 1 }])
    db.exec("INSERT INTO notes VALUES ('c', 'three', 0)")
    expect((await hub.sync(db)).pushed).toBe(1)
  })

  test('passes on what the function throws, and keeps syncs waiting for its end', async () => {
    const server = await startHub()
    const hub = await connectAgent(server, 'one')
    const db = openDatabase(':memory:', NOTES)
    await hub.sync(db)
    const failed = FederationHub.migrate(db, () => {
      add(db, 'a', 'one')
      db.exec('BEGIN')
      add(db, 'b', 'two')
      throw new RangeError('not today')
    })
    expect(await rejection(failed)).toBeInstanceOf(RangeError)
    db.exec('ROLLBACK')
    await FederationHub.migrate(db, () => undefined)
    const order: string[] = []
    let begun = (): void => undefined
    const hasBegun = new Promise<void>((resolve) => (begun = resolve))
    const migrated = FederationHub.migrate(db, async () => {
      begun()
      await new Promise((resolve) => setTimeout(resolve, 20))
      order.push('migrated')
      expect((await rejection(hub.sync(db))).message).toContain('inside migrate()')
    })
    await hasBegun
    const report = await hub.sync(db)
    order.push('synced')
    await migrated
    expect(order).toEqual(['migrated', 'synced'])
    expect(report.pushed).toBe(2)
  })

  test('wants a handle, a function and no open transaction', async () => {
    const db = openDatabase(':memory:', NOTES)
    const path = 'agent.db' as unknown as Handle
    expect(await rejection(FederationHub.migrate(path, () => 0))).toMatchObject({ code: 'ERR_FEDERATION_CONFIG' })
    const change = 'DROP TABLE notes' as unknown as () => void
    expect(await rejection(FederationHub.migrate(db, change))).toMatchObject({ code: 'ERR_FEDERATION_CONFIG' })
    expect(await FederationHub.migrate(db, () => 7)).toBe(7)
    await (await connectAgent(await startHub(), 'one')).sync(db)
    db.exec('BEGIN')
    const refused = await rejection(FederationHub.migrate(db, () => 0))
    expect(refused).toMatchObject({ code: 'ERR_FEDERATION_DATABASE', message: expect.stringContaining('outside of it') })
    db.exec('ROLLBACK')
  })
})

test('an idle sync of a database with forty tables is three statements, and no DDL', async () => {
  const server = await startHub()
  const ran: string[] = []
  const statement = Object.getPrototypeOf(openDatabase().prepare('SELECT 1')) as { all: () => unknown; run: () => unknown }
  for (const method of ['all', 'run'] as const) {
    const original = statement[method]
    statement[method] = function counted(this: { source: string }, ...args: []) {
      ran.push(this.source)
      return original.apply(this, args)
    }
    cleanup(() => (statement[method] = original))
  }
  for (const file of [':memory:', temporaryFile()]) {
    const hub = await connectAgent(server, file)
    const db = openDatabase(file)
    const exec = db.exec.bind(db)
    db.exec = (source) => {
      ran.push(source)
      return exec(source)
    }
    db.pragma('journal_mode = WAL')
    for (let i = 0; i < 40; i += 1) db.exec(`CREATE TABLE t${i} (id INTEGER PRIMARY KEY, a UNIQUE, b)`)
    db.exec("INSERT INTO t7 VALUES (1, 'x', 'y')")
    await hub.sync(db)
    await hub.sync(db)
    ran.length = 0
    await hub.sync(db)
    expect(ran).toEqual(['BEGIN', expect.stringMatching(/^SELECT /), 'COMMIT'])
  }
})

test("rows that only a function of the application's own takes for the same become one", async () => {
  const server = await startHub()
  const open = () => {
    const db = openDatabase()
    db.function('slug', { deterministic: true }, (text) => String(text).toLowerCase().replace(/\s+/g, '-'))
    db.exec('CREATE TABLE skills (id INTEGER PRIMARY KEY, name TEXT); CREATE UNIQUE INDEX by_slug ON skills (slug(name))')
    return db
  }
  const [ada, ben] = [await connectAgent(server, 'ada'), await connectAgent(server, 'ben')]
  const [adas, bens] = [open(), open()]
  // Bound to the hub first: rows that a database has when it is attached are old ones.
  await ada.sync(adas)
  await ben.sync(bens)
  adas.exec("INSERT INTO skills (name) VALUES ('Retry Later')")
  bens.exec("INSERT INTO skills (name) VALUES ('retry  later'), ('other')")
  for (const _ of [1, 2, 3]) {
    await ada.sync(adas)
    await ben.sync(bens)
  }
  const names = 'SELECT name FROM skills ORDER BY name'
  expect(adas.prepare(names).all()).toEqual(bens.prepare(names).all())
  expect(adas.prepare(names).all()).toHaveLength(2)
  expect((await ada.sync(adas)).quarantined).toBe(0)
})
