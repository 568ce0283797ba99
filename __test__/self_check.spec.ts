// The self-check, end to end: what capture did not see is found, healed and reported.

import { connectAgent, openDatabase, startHub, type Handle } from './support'

const SCHEMA = `
  CREATE TABLE tasks (id INTEGER PRIMARY KEY, name TEXT);
  CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT, task INTEGER REFERENCES tasks (id), vector BLOB)`

/** Runs what capture does not see: without its trigger, which is then put back just as it was. */
function withoutCapture(db: Handle, table: string, work: () => void): void {
  const triggers = db
    .prepare(`SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? AND name LIKE '%federation%'`)
    .all(table) as Array<{ name: string; sql: string }>
  expect(triggers.length).toBeGreaterThan(0)
  for (const { name } of triggers) db.exec(`DROP TRIGGER "${name}"`)
  work()
  for (const { sql } of triggers) db.exec(sql)
}

test('a cell that was changed with capture removed is healed, and reported', async () => {
  const server = await startHub()
  const [one, two] = [await connectAgent(server, 'one'), await connectAgent(server, 'two')]
  const [a, b] = [openDatabase(':memory:', SCHEMA), openDatabase(':memory:', SCHEMA)]
  for (let i = 0; i < 30; i += 1) {
    a.prepare('INSERT INTO tasks (name) VALUES (?)').run(`task ${i}`)
    a.prepare('INSERT INTO notes VALUES (?, ?, ?, ?)').run(`note ${i}`, 'body', i + 1, Buffer.alloc(64, i))
  }
  await one.sync(a)
  await two.sync(b)
  const rows = (db: Handle): unknown[] =>
    db.prepare('SELECT notes.*, name FROM notes JOIN tasks ON tasks.id = task ORDER BY notes.id').all()
  const before = rows(b)
  expect(before).toEqual(rows(a))

  const damage = [
    `UPDATE notes SET body = 'rotten' WHERE id = 'note 7'`,
    `UPDATE notes SET task = 1 WHERE id = 'note 8'`,
    `DELETE FROM notes WHERE id = 'note 9'`,
  ]
  withoutCapture(b, 'notes', () => damage.forEach((statement) => b.exec(statement)))
  expect(rows(b)).not.toEqual(before)
  let healed = 0
  const notices: string[] = []
  for (let i = 0; i < 20 && healed < 3; i += 1) {
    const report = await two.sync(b)
    healed += report.healed
    notices.push(...report.notices)
    expect(report).toMatchObject({ pushed: 0, conflicts: 0, quarantined: 0 })
  }
  expect(healed).toBe(3)
  expect(notices.join()).toMatch(/table notes/)
  expect(rows(b)).toEqual(before)
  expect(await one.sync(a)).toMatchObject({ healed: 0, pulled: 0 })
  expect(rows(a)).toEqual(before)
  expect(b.prepare('PRAGMA foreign_keys').get()).toEqual({ foreign_keys: 1 })
})

test('each idle sync looks at some rows, so that nothing differs for long', async () => {
  const hub = await connectAgent(await startHub(), 'one')
  const db = openDatabase(':memory:', SCHEMA)
  for (let i = 0; i < 100; i += 1) db.prepare('INSERT INTO tasks (name) VALUES (?)').run(`task ${i}`)
  await hub.sync(db)
  await hub.sync(db)
  db.exec(`UPDATE tasks SET name = 'rotten' WHERE id = 50; DELETE FROM _federation_log`)
  let healed = 0
  for (let i = 0; i < 40 && healed === 0; i += 1) healed += (await hub.sync(db)).healed
  expect(healed).toBe(1)
  expect(db.prepare('SELECT name FROM tasks WHERE id = 50').get()).toEqual({ name: 'task 49' })
})
