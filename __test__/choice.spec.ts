// What an application may choose: which tables are shared, and how.

import path from 'node:path'

import { FederationHub, type FederationHubConfig, type FederationResolver, type FederationTables } from '..'
import { connectAgent, folder, openDatabase, rejection, startHub, type Handle } from './support'

const SKILLS = 'CREATE TABLE skills (name TEXT PRIMARY KEY, uses, tags TEXT, notes TEXT)'

function rows(db: Handle, sql: string): unknown[] {
  return db.prepare(sql).all()
}

/** Two connected agents with these options, and a database each. */
async function two(options: Partial<FederationHubConfig>, schema: string) {
  const server = await startHub()
  const [ada, ben] = [await connectAgent(server, 'ada', options), await connectAgent(server, 'ben', options)]
  const [adas, bens] = [openDatabase(':memory:', schema), openDatabase(':memory:', schema)]
  await ada.sync(adas)
  await ben.sync(bens)
  /** Syncs until both have heard of everything. */
  const settle = async () => {
    for (const _ of [1, 2]) {
      await ada.sync(adas)
      await ben.sync(bens)
    }
  }
  return { server, ada, ben, adas, bens, settle }
}

describe('what makes no sense is refused by name', () => {
  test.each([
    [{ tables: [] }, 'config.tables must be an object, not an array'],
    [{ tables: { include: 'notes' } }, "config.tables.include must be an array of tables' names, not of type string"],
    [{ tables: { exclude: [7] } }, 'config.tables.exclude[0] must be a non-empty string, not of type number'],
    [{ tables: { skills: null } }, 'config.tables.skills must be an object, not null'],
    [{ tables: { skills: { merges: {} } } }, 'config.tables.skills.merges is no option; did you mean config.tables.skills.merge?'],
    [{ tables: { skills: { identity: 'uuid' } } }, "config.tables.skills.identity must be one of 'primaryKey', not 'uuid'"],
    [{ tables: { skills: { numbers: 'far' } } }, "config.tables.skills.numbers must be one of 'apart', not 'far'"],
    [
      { tables: { skills: { numbers: 'apart', identity: 'primaryKey' } } },
      "config.tables.skills has identity 'primaryKey' and numbers 'apart'",
    ],
    [{ tables: { skills: { merge: { uses: 'sum' } } } }, "config.tables.skills.merge.uses must be one of 'lww', "],
    [{ tables: { skills: { merge: { uses: 1 } } } }, 'config.tables.skills.merge.uses must be a rule or a function'],
    [{ references: {} }, 'config.references must be an array, not of type object'],
    [{ references: [{ table: 'a', column: 'b' }] }, 'config.references[0].to must be a non-empty string, not undefined'],
    [{ references: [{ table: 'a', column: 'b', by: 'c', to: 'd' }] }, 'config.references[0].to must be an object'],
    [{ references: [{ table: 'a', column: 'b', to: 'c', on: 1 }] }, 'config.references[0].on is no option'],
    [{ existingRows: 'all' }, "config.existingRows must be one of 'old', 'new', not 'all'"],
    [{ createSchema: 1 }, `config.createSchema must be a boolean or 'auto', not of type number`],
  ])('%j', async (wrong, message) => {
    const server = await startHub()
    const config = { ...server.agentConfig({ agentId: 'ada', tenantId: 'acme' }), ...wrong }
    const error = await rejection(new FederationHub(config as unknown as FederationHubConfig).connect())
    expect(error).toMatchObject({ code: 'ERR_FEDERATION_CONFIG' })
    expect(error.message).toContain(message)
  })
})

test('excluded tables stay where they are, and one that is included later receives its past', async () => {
  const schema = 'CREATE TABLE notes (id TEXT PRIMARY KEY); CREATE TABLE cache_of (id TEXT PRIMARY KEY)'
  const { server, adas, bens, settle } = await two({ tables: { exclude: ['cache_*'] } }, schema)
  adas.exec(`INSERT INTO notes VALUES ('n'); INSERT INTO cache_of VALUES ('ada')`)
  bens.exec(`INSERT INTO cache_of VALUES ('ben')`)
  await settle()
  expect(rows(bens, 'SELECT * FROM notes')).toEqual([{ id: 'n' }])
  expect(rows(bens, 'SELECT * FROM cache_of')).toEqual([{ id: 'ben' }])
  expect(rows(adas, `SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'cache_of'`)).toEqual([])

  const [ada, ben] = [await connectAgent(server, 'ada'), await connectAgent(server, 'ben')]
  await ada.sync(adas)
  await ben.sync(bens)
  await ada.sync(adas)
  expect(rows(adas, 'SELECT * FROM cache_of ORDER BY id')).toEqual([{ id: 'ada' }, { id: 'ben' }])
  expect(rows(bens, 'SELECT * FROM cache_of ORDER BY id')).toEqual([{ id: 'ada' }, { id: 'ben' }])
})

test('only what is included is shared', async () => {
  const schema = 'CREATE TABLE notes (id TEXT PRIMARY KEY); CREATE TABLE other (id TEXT PRIMARY KEY)'
  const { adas, bens, settle } = await two({ tables: { include: ['notes'] } }, schema)
  adas.exec(`INSERT INTO notes VALUES ('n'); INSERT INTO other VALUES ('o')`)
  await settle()
  expect(rows(bens, 'SELECT * FROM notes')).toEqual([{ id: 'n' }])
  expect(rows(bens, 'SELECT * FROM other')).toEqual([])
})

test('what is named and nobody has is told once', async () => {
  const server = await startHub()
  const tables: FederationTables = { exclude: ['chache'], skills: { merge: { usse: 'counter' } } }
  const ada = await connectAgent(server, 'ada', { tables })
  const db = openDatabase(':memory:', SKILLS)
  const { notices } = await ada.sync(db)
  expect(notices).toEqual([expect.stringContaining('skills.usse'), expect.stringContaining('chache')])
  expect((await ada.sync(db)).notices).toEqual([])
})

test('a number that is meant globally is one row', async () => {
  const options = { tables: { tasks: { identity: 'primaryKey' } } } as const
  const { adas, bens, settle } = await two(options, 'CREATE TABLE tasks (id INTEGER PRIMARY KEY, title TEXT)')
  adas.exec(`INSERT INTO tasks VALUES (7, 'of ada')`)
  bens.exec(`INSERT INTO tasks VALUES (7, 'of ben')`)
  await settle()
  expect(rows(adas, 'SELECT * FROM tasks')).toEqual(rows(bens, 'SELECT * FROM tasks'))
  expect(rows(adas, 'SELECT id FROM tasks')).toEqual([{ id: 7 }])
})

test('an application that counts its rows itself writes over none that comes', async () => {
  const options = { tables: { exclude: ['meta'], memories: { numbers: 'apart' } } } as const
  const schema = `CREATE TABLE memories (id INTEGER PRIMARY KEY, title TEXT NOT NULL);
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL); INSERT INTO meta VALUES ('next_id', '1')`
  const { ada, ben, adas, bens, settle } = await two(options, schema)
  const remember = (db: Handle, title: string) => {
    const { value } = db.prepare(`SELECT value FROM meta WHERE key = 'next_id'`).get() as { value: string }
    db.prepare('INSERT OR REPLACE INTO memories VALUES (?, ?)').run(Number(value), title)
    db.prepare(`UPDATE meta SET value = ? WHERE key = 'next_id'`).run(String(Number(value) + 1))
  }
  for (let at = 0; at < 6; at += 1) {
    remember(adas, `of ada ${at}`)
    await ada.sync(adas)
    remember(bens, `of ben ${at}`)
    await ben.sync(bens)
  }
  await settle()
  for (const db of [adas, bens]) {
    expect(rows(db, 'SELECT count(*) AS n, min(id) AS least, max(id) AS last FROM memories')).toEqual([
      { n: 12, least: -7, last: 6 },
    ])
  }
})

test('declarations that contradict the first are one notice, and other tables go on', async () => {
  const server = await startHub()
  const ada = await connectAgent(server, 'ada', { tables: { skills: { merge: { uses: 'counter' } } } })
  const ben = await connectAgent(server, 'ben', { tables: { skills: { merge: { uses: 'max' } } } })
  const notes = 'CREATE TABLE notes (id TEXT PRIMARY KEY)'
  const [adas, bens] = [openDatabase(':memory:', `${SKILLS}; ${notes}`), openDatabase(':memory:', `${SKILLS}; ${notes}`)]
  await ada.sync(adas)
  bens.exec(`INSERT INTO skills(name) VALUES ('a'), ('b'), ('c'); INSERT INTO notes VALUES ('n')`)
  const report = await ben.sync(bens)
  expect(report).toMatchObject({ pushed: 1, rejected: 3 })
  expect(report.notices).toEqual([expect.stringMatching(/column uses of table skills is counter .* max on this/)])
  await ada.sync(adas)
  expect(rows(adas, 'SELECT * FROM notes')).toEqual([{ id: 'n' }])
  expect(rows(adas, 'SELECT * FROM skills')).toEqual([])
})

test('counters add up, and sets keep every addition and removal', async () => {
  const options: Partial<FederationHubConfig> = { tables: { skills: { merge: { uses: 'counter', tags: 'set' } } } }
  const { adas, bens, settle } = await two(options, SKILLS)
  adas.exec(`INSERT INTO skills(name, uses, tags) VALUES ('retry', 10, '["net"]')`)
  await settle()
  adas.exec(`UPDATE skills SET uses = uses + 1, tags = '["net","slow"]'`)
  bens.exec(`UPDATE skills SET uses = uses + 2, tags = '[]'`)
  await settle()
  const merged = [{ uses: 13, tags: '["slow"]' }]
  expect(rows(adas, 'SELECT uses, tags FROM skills')).toEqual(merged)
  expect(rows(bens, 'SELECT uses, tags FROM skills')).toEqual(merged)
})

describe('a resolver', () => {
  const resolving = (notes: FederationResolver): Partial<FederationHubConfig> => ({
    tables: { skills: { merge: { notes } } },
  })

  async function conflict(notes: FederationResolver) {
    const both = await two(resolving(notes), SKILLS)
    both.adas.exec(`INSERT INTO skills(name, notes) VALUES ('retry', 'none')`)
    await both.settle()
    both.adas.exec(`UPDATE skills SET notes = 'of ada'`)
    // Later by more than the clocks' grain.
    await new Promise((resolve) => setTimeout(resolve, 5))
    both.bens.exec(`UPDATE skills SET notes = 'of ben'`)
    await both.ada.sync(both.adas)
    return { ...both, report: await both.ben.sync(both.bens) }
  }

  test('receives both values and their clocks, once, where the second of them was written', async () => {
    const resolver = jest.fn((local, remote) => `${String(remote)}, ${String(local)}`)
    const before = Date.now() - 60_000
    const { adas, bens, settle, report } = await conflict(resolver)
    expect(report).toMatchObject({ conflicts: 1, notices: [] })
    expect(rows(bens, 'SELECT notes FROM skills')).toEqual([{ notes: 'of ada, of ben' }])
    await settle()
    expect(rows(adas, 'SELECT notes FROM skills')).toEqual([{ notes: 'of ada, of ben' }])
    expect(resolver.mock.calls).toEqual([
      [
        'of ben',
        'of ada',
        {
          table: 'skills',
          column: 'notes',
          local: { agentId: 'ben', writtenAt: expect.any(Number) },
          remote: { agentId: 'ada', writtenAt: expect.any(Number) },
        },
      ],
    ])
    const [, , context] = resolver.mock.calls[0] as unknown as Parameters<FederationResolver>
    expect(context.remote.writtenAt).toBeGreaterThan(before)
  })

  test.each([
    ['throws', () => { throw new Error('no idea') }, 'no idea'],
    ['returns a promise', () => Promise.resolve('late'), 'a promise'],
    ['returns nothing', () => undefined, 'type undefined'],
    ['returns no number', () => Number.NaN, 'type number'],
  ])('that %s leaves the later write standing, and is told of', async (_, resolver, message) => {
    const { adas, bens, settle, report } = await conflict(resolver as unknown as FederationResolver)
    expect(report.notices).toEqual([expect.stringMatching(/the resolver of skills\.notes failed/)])
    expect(report.notices[0]).toContain(message)
    await settle()
    expect(rows(adas, 'SELECT notes FROM skills')).toEqual([{ notes: 'of ben' }])
    expect(rows(bens, 'SELECT notes FROM skills')).toEqual([{ notes: 'of ben' }])
  })

  test('receives and returns every kind of value, and works on a path', async () => {
    const seen: unknown[] = []
    const resolver: FederationResolver = (local, remote) => {
      seen.push(local, remote)
      return typeof local === 'number' ? local + Number(remote) : Buffer.from('both')
    }
    const server = await startHub()
    const ada = await connectAgent(server, 'ada', { tables: { values: { merge: { v: resolver } } } })
    const directory = folder()
    const schema = 'CREATE TABLE "values" (id INTEGER PRIMARY KEY, v)'
    const file = path.join(directory, 'ada.db')
    const change = (sql: string) => {
      const db = openDatabase(file)
      db.exec(sql)
      db.close()
    }
    change(`${schema}; INSERT INTO "values" VALUES (1, 0), (2, 0), (3, 0.0), (4, 0)`)
    await ada.sync(file)
    const ben = await connectAgent(server, 'ben')
    const bens = openDatabase(':memory:', schema)
    await ben.sync(bens)
    bens.exec(`UPDATE "values" SET v = CASE id WHEN 1 THEN 40 WHEN 2 THEN NULL WHEN 3 THEN 0.5 ELSE 2 END`)
    bens.exec(`UPDATE "values" SET v = 9007199254740993 WHERE id = 2`)
    change(`UPDATE "values" SET v = CASE id WHEN 1 THEN 2 WHEN 2 THEN x'ff' WHEN 3 THEN 0.5 ELSE 1.5 END`)
    await ben.sync(bens)
    expect(await ada.sync(file)).toMatchObject({ notices: [] })
    expect(seen).toEqual([2, 40, Buffer.from([0xff]), 9007199254740993n, 1.5, 2])
    const kinds = openDatabase(file).prepare('SELECT v, typeof(v) AS kind FROM "values" ORDER BY id').all()
    expect(kinds).toEqual([
      { v: 42, kind: 'integer' },
      { v: Buffer.from('both'), kind: 'blob' },
      { v: 0.5, kind: 'real' },
      { v: 3.5, kind: 'real' },
    ])
  })
})

test('existingRows says whether rows that were there give way', async () => {
  for (const [existingRows, count] of [['old', 1], ['new', 2]] as const) {
    const schema = `CREATE TABLE tasks (id INTEGER PRIMARY KEY, title TEXT); INSERT INTO tasks VALUES (1, 'template')`
    const { adas, settle } = await two({ existingRows }, schema)
    await settle()
    expect(rows(adas, 'SELECT count(*) AS n FROM tasks')).toEqual([{ n: count }])
  }
})

test('rows that were there and become one with another agent’s are told of, to whoever comes second', async () => {
  const schema = `CREATE TABLE tasks (id INTEGER PRIMARY KEY, title TEXT); INSERT INTO tasks VALUES (1, 'say hello');
    CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT); INSERT INTO settings VALUES ('mood', 'fine')`
  const server = await startHub()
  const first = await (await connectAgent(server, 'first')).sync(openDatabase(':memory:', schema))
  expect(first.notices).toEqual([])
  const second = await connectAgent(server, 'second')
  const db = openDatabase(':memory:', schema)
  expect((await second.sync(db)).notices).toEqual([
    expect.stringMatching(/^rows of tasks .* were taken for the same: .* existingRows: 'new'$/),
  ])
  expect(rows(db, 'SELECT * FROM tasks')).toHaveLength(1)
  expect((await second.sync(db)).notices).toEqual([])
  const apart = await connectAgent(server, 'apart', { existingRows: 'new' })
  const own = openDatabase(':memory:', schema)
  expect((await apart.sync(own)).notices).toEqual([])
  expect(rows(own, 'SELECT * FROM tasks')).toHaveLength(2)
})

test('with createSchema: false rows wait for the table that the application makes', async () => {
  const server = await startHub()
  const ada = await connectAgent(server, 'ada')
  await ada.sync(openDatabase(':memory:', `CREATE TABLE notes (id TEXT PRIMARY KEY); INSERT INTO notes VALUES ('n')`))
  const ben = await connectAgent(server, 'ben', { createSchema: false })
  const db = openDatabase()
  const report = await ben.sync(db)
  expect(report).toMatchObject({ pulled: 0, quarantined: 0 })
  expect(report.notices).toEqual([expect.stringContaining('tables of this tenant are not made here: notes')])
  expect(rows(db, `SELECT name FROM sqlite_master WHERE name = 'notes'`)).toEqual([])
  db.exec(`CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY, mood TEXT DEFAULT 'fine')`)
  expect(await ben.sync(db)).toMatchObject({ pulled: 1, notices: [] })
  expect(rows(db, 'SELECT * FROM notes')).toEqual([{ id: 'n', mood: 'fine' }])
})

test('references that no foreign key declares follow the row', async () => {
  const schema = `CREATE TABLE episodes (id INTEGER PRIMARY KEY, what TEXT);
    CREATE TABLE skills (id INTEGER PRIMARY KEY, what TEXT);
    CREATE TABLE scores (id INTEGER PRIMARY KEY, memory_id INTEGER, memory_type TEXT)`
  const references = [
    { table: 'scores', column: 'memory_id', by: 'memory_type', to: { episode: 'episodes', skill: 'skills' } },
  ]
  const { adas, bens, settle } = await two({ references }, schema)
  for (const [db, who] of [[adas, 'ada'], [bens, 'ben']] as const) {
    db.exec(`INSERT INTO episodes(what) VALUES ('episode of ${who}'); INSERT INTO skills(what) VALUES ('skill of ${who}');
      INSERT INTO scores(memory_id, memory_type) VALUES (1, 'episode'), (1, 'skill')`)
  }
  await settle()
  const what = `SELECT e.what FROM scores AS s JOIN episodes AS e ON e.id = s.memory_id AND memory_type = 'episode'
    UNION ALL SELECT k.what FROM scores AS s JOIN skills AS k ON k.id = s.memory_id AND memory_type = 'skill' ORDER BY 1`
  const expected = ['episode of ada', 'episode of ben', 'skill of ada', 'skill of ben'].map((it) => ({ what: it }))
  expect(rows(adas, what)).toEqual(expected)
  expect(rows(bens, what)).toEqual(expected)
})

test('a number can name the table that a reference leads to', async () => {
  const schema = `CREATE TABLE posts (id INTEGER PRIMARY KEY, what TEXT); CREATE TABLE pages (id INTEGER PRIMARY KEY, what TEXT);
    CREATE TABLE tags (name TEXT PRIMARY KEY, content_type_id INTEGER NOT NULL, object_id INTEGER NOT NULL)`
  const references = [{ table: 'tags', column: 'object_id', by: 'content_type_id', to: { 7: 'posts', 8: 'pages' } }]
  const { adas, bens, settle } = await two({ references }, schema)
  bens.exec(`INSERT INTO posts(what) VALUES ('of ben'); INSERT INTO pages(what) VALUES ('of ben'), ('of ben, too')`)
  adas.exec(`INSERT INTO posts VALUES (1, 'post'); INSERT INTO pages VALUES (1, 'page');
    INSERT INTO tags VALUES ('a', 7, 1), ('b', 8, 1), ('c', 9, 1)`)
  await settle()
  const what = `SELECT name, coalesce(posts.what, pages.what) AS what FROM tags
    LEFT JOIN posts ON content_type_id = 7 AND posts.id = object_id
    LEFT JOIN pages ON content_type_id = 8 AND pages.id = object_id ORDER BY name`
  const expected = [{ name: 'a', what: 'post' }, { name: 'b', what: 'page' }, { name: 'c', what: null }]
  expect(rows(adas, what)).toEqual(expected)
  expect(rows(bens, what)).toEqual(expected)
})
