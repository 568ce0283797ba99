// What people are told of a database, they are told once: also where each sync opens the file anew.

import Database from 'better-sqlite3'
import path from 'node:path'

import { connectAgent, folder, openDatabase, startHub } from './support'

const SCHEMA = `CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT);
  CREATE VIEW bodies AS SELECT body FROM notes;
  CREATE VIRTUAL TABLE found USING fts5(body);
  CREATE TRIGGER notes_ai AFTER INSERT ON notes BEGIN INSERT INTO found VALUES (new.body); END;
  CREATE TRIGGER notes_au AFTER UPDATE ON notes BEGIN
    INSERT INTO found VALUES (new.body); INSERT INTO logged VALUES (new.body); END;
  CREATE TABLE logged (body TEXT)`

function file(schema: string): { name: string; run: (statements: string) => void } {
  const directory = folder()
  const name = path.join(directory, 'agent.db')
  const run = (statements: string) => {
    const db = new Database(name)
    db.exec(statements)
    db.close()
  }
  run(schema)
  return { name, run }
}

test('by path, what is not shared is told once for a database, and again if it was mended meanwhile', async () => {
  const server = await startHub()
  const hub = await connectAgent(server, 'ada', { tables: { exclude: ['chache'] } })
  const { name, run } = file(SCHEMA)
  const told = (await hub.sync(name)).notices
  expect(told).toEqual([
    expect.stringContaining('not shared: bodies (a view)'),
    expect.stringContaining('not shared: found'),
    expect.stringContaining('the options name a table chache'),
  ])
  expect((await hub.sync(name)).notices).toEqual([])
  await hub.disconnect()
  await hub.connect()
  expect((await hub.sync(name)).notices).toEqual([])
  const another = await connectAgent(server, 'ada', { tables: { exclude: ['chache'] } })
  expect((await another.sync(name)).notices).toEqual([])
  run('CREATE VIEW ids AS SELECT id FROM notes')
  expect((await hub.sync(name)).notices).toEqual(['not shared: ids (a view)'])
  run('DROP VIEW ids')
  expect((await hub.sync(name)).notices).toEqual([])
  run('CREATE VIEW ids AS SELECT id FROM notes')
  expect((await hub.sync(name)).notices).toHaveLength(1)
})

test('of an index that misses what a sync brings, likewise', async () => {
  const server = await startHub()
  const [ada, ben] = [await connectAgent(server, 'ada'), await connectAgent(server, 'ben')]
  const [a, b] = [file(SCHEMA), file(SCHEMA)]
  await ada.sync(a.name)
  await ben.sync(b.name)
  const notices = []
  for (const id of ['x', 'y', 'z']) {
    a.run(`INSERT INTO notes VALUES ('${id}', 'of ada')`)
    await ada.sync(a.name)
    notices.push(...(await ben.sync(b.name)).notices)
  }
  expect(notices).toEqual([expect.stringContaining('trigger notes_au on notes does not run')])
})

test('a table that holds one row is named, with the option that makes it one row for all', async () => {
  const schema = `CREATE TABLE settings (id INTEGER PRIMARY KEY CHECK (id = 1), theme TEXT);
    INSERT INTO settings VALUES (1, `
  const server = await startHub()
  const adas = openDatabase(':memory:', `${schema} 'dark')`)
  const bens = openDatabase(':memory:', `${schema} 'light')`)
  const [ada, ben] = [await connectAgent(server, 'ada'), await connectAgent(server, 'ben')]
  const advice = expect.stringContaining("tables.settings.identity: 'primaryKey'")
  expect((await ada.sync(adas)).notices).toEqual([advice])
  expect((await ada.sync(adas)).notices).toEqual([])
  const report = await ben.sync(bens)
  expect(report.quarantined).toBe(1)
  const aside = report.notices.filter((notice) => notice.startsWith('rows of settings are set aside: CHECK'))
  expect(aside).toEqual([advice])

  const other = await startHub()
  const tables = { settings: { identity: 'primaryKey' as const } }
  const agents = [await connectAgent(other, 'ada', { tables }), await connectAgent(other, 'ben', { tables })] as const
  const databases = [openDatabase(':memory:', `${schema} 'dark')`), openDatabase(':memory:', `${schema} 'light')`)] as const
  for (const at of [0, 1, 0] as const) {
    expect((await agents[at].sync(databases[at])).notices.filter((notice) => notice.includes('identity'))).toEqual([])
  }
  for (const db of databases) expect(db.prepare('SELECT theme FROM settings').all()).toEqual([{ theme: 'dark' }])
})
