// Real packages, unchanged, each on two databases: one that it opens before the first sync, and an empty file that is synced
// first, and opened by the package afterwards. Neither knows of the other's releases.

import Database from 'better-sqlite3'
import { Kysely, Migrator, SqliteDialect, sql, type Migration } from 'kysely'
import fs from 'node:fs'
import path from 'node:path'

import type { FederationHub } from '..'
import { pythonWithPackages } from './python'
import { connectAgent, folder, startHub, type Handle } from './support'

// The types of drizzle are not sound by themselves.
const { drizzle } = jest.requireActual<{ drizzle(client: Database.Database): object }>('drizzle-orm/better-sqlite3')
const { migrate } = jest.requireActual<{ migrate(db: object, config: { migrationsFolder: string }): void }>(
  'drizzle-orm/better-sqlite3/migrator',
)

const python = pythonWithPackages()
const testWithPython = python ? test : test.skip

interface Pair {
  hubs: [FederationHub, FederationHub]
  files: [string, string]
}

async function pair(): Promise<Pair> {
  const server = await startHub()
  const place = folder()
  const files: [string, string] = [path.join(place, 'a.db'), path.join(place, 'b.db')]
  return { hubs: [await connectAgent(server, 'a'), await connectAgent(server, 'b')], files }
}

/** Works on a file, and leaves it closed: it is synced by its path. */
function using<T>(file: string, work: (db: Handle) => T): T {
  const db = new Database(file)
  try {
    return work(db)
  } finally {
    db.close()
  }
}

function all(file: string, query: string): unknown[] {
  return using(file, (db) => db.prepare(query).all())
}

async function settle({ hubs, files }: Pair): Promise<void> {
  for (const at of [0, 1, 0, 1] as const) {
    expect(await hubs[at].sync(files[at])).toMatchObject({ quarantined: 0, rejected: 0, healed: 0 })
  }
}

/** The second file is empty when it is synced: no table of the first is made there, and a notice says why, once. */
async function syncsEmpty({ hubs, files }: Pair, why: string): Promise<void> {
  await hubs[0].sync(files[0])
  expect((await hubs[1].sync(files[1])).notices).toEqual([expect.stringContaining(why)])
  expect((await hubs[1].sync(files[1])).notices).toEqual([])
  expect(all(files[1], `SELECT name FROM sqlite_master WHERE name NOT LIKE '\\_federation%' ESCAPE '\\' AND type = 'table'
    AND name NOT LIKE 'sqlite%'`)).toEqual([])
}

/** Brings a file up to a release of an application: a table and a view of it, then another column, and another table. */
type Upgrade = (file: string, release: 1 | 2) => Promise<void> | void

async function twoReleases(upgrade: Upgrade, journal: string): Promise<void> {
  const both = await pair()
  const [a, b] = both.files
  const insert = (file: string, statement: string) => using(file, (db) => db.exec(statement))
  await upgrade(a, 1)
  insert(a, "INSERT INTO notes(id, body) VALUES ('a', 'of a')")
  await syncsEmpty(both, journal)
  await upgrade(b, 1)
  insert(b, "INSERT INTO notes(id, body) VALUES ('b', 'of b')")
  await settle(both)
  for (const file of both.files) {
    expect(all(file, 'SELECT body FROM bodies ORDER BY body')).toEqual([{ body: 'of a' }, { body: 'of b' }])
  }
  // One upgrades, and both go on: the other one's turn comes later.
  await upgrade(a, 2)
  insert(a, "UPDATE notes SET mood = 'good' WHERE id = 'b'; INSERT INTO tags(name) VALUES ('of a')")
  await settle(both)
  insert(b, "UPDATE notes SET body = 'edited by b' WHERE id = 'a'")
  await settle(both)
  await upgrade(b, 2)
  insert(b, "INSERT INTO tags(name) VALUES ('of b')")
  await settle(both)
  for (const file of both.files) {
    expect(all(file, 'SELECT body, mood FROM bodies ORDER BY body')).toEqual([
      { body: 'edited by b', mood: 'fine' },
      { body: 'of b', mood: 'good' },
    ])
    expect(all(file, 'SELECT name FROM tags ORDER BY name')).toEqual([{ name: 'of a' }, { name: 'of b' }])
  }
  // A third comes in with the second release, in one go.
  const server = both.hubs[0]
  const third = path.join(folder(), 'c.db')
  await upgrade(third, 2)
  await server.sync(third)
  await server.sync(third)
  expect(all(third, 'SELECT count(*) AS n FROM bodies')).toEqual([{ n: 2 }])
}

test('drizzle, in two releases', async () => {
  const releases: Array<[string, string]> = [
    ['0000_one', `CREATE TABLE notes (id text PRIMARY KEY NOT NULL, body text);
--> statement-breakpoint
CREATE VIEW bodies AS SELECT body FROM notes;`],
    ['0001_two', `DROP VIEW bodies;
--> statement-breakpoint
ALTER TABLE notes ADD mood text DEFAULT 'fine';
--> statement-breakpoint
CREATE VIEW bodies AS SELECT body, mood FROM notes;
--> statement-breakpoint
CREATE TABLE tags (id integer PRIMARY KEY AUTOINCREMENT NOT NULL, name text);
--> statement-breakpoint
CREATE UNIQUE INDEX tags_name_unique ON tags (name);`],
  ]
  // As drizzle-kit writes them.
  const migrationsFolder = (release: number) => {
    const place = folder()
    fs.mkdirSync(path.join(place, 'meta'))
    const shipped = releases.slice(0, release)
    const entries = shipped.map(([tag], idx) => ({ idx, version: '6', when: 1_700_000_000_000 + idx, tag, breakpoints: true }))
    fs.writeFileSync(path.join(place, 'meta', '_journal.json'), JSON.stringify({ version: '7', dialect: 'sqlite', entries }))
    for (const [tag, text] of shipped) fs.writeFileSync(path.join(place, `${tag}.sql`), text)
    return place
  }
  await twoReleases(
    (file, release) => using(file, (db) => migrate(drizzle(db), { migrationsFolder: migrationsFolder(release) })),
    '__drizzle_migrations',
  )
})

test('kysely, in two releases', async () => {
  const releases: Array<[string, Migration]> = [
    ['one', {
      up: async (db) => {
        await db.schema.createTable('notes').addColumn('id', 'text', (it) => it.primaryKey()).addColumn('body', 'text').execute()
        await sql`CREATE VIEW bodies AS SELECT body FROM notes`.execute(db)
      },
    }],
    ['two', {
      up: async (db) => {
        await db.schema.dropView('bodies').execute()
        await db.schema.alterTable('notes').addColumn('mood', 'text', (it) => it.defaultTo('fine')).execute()
        await sql`CREATE VIEW bodies AS SELECT body, mood FROM notes`.execute(db)
        const tags = db.schema.createTable('tags').addColumn('id', 'integer', (it) => it.primaryKey())
        await tags.addColumn('name', 'text', (it) => it.unique()).execute()
      },
    }],
  ]
  await twoReleases(async (file, release) => {
    const db = new Kysely<unknown>({ dialect: new SqliteDialect({ database: new Database(file) }) })
    const provider = { getMigrations: async () => Object.fromEntries(releases.slice(0, release)) }
    const { error } = await new Migrator({ db, provider }).migrateToLatest()
    await db.destroy()
    expect(error).toBeUndefined()
  }, 'kysely_migration')
})

testWithPython('alembic, in two releases, of which the second makes a table anew', async () => {
  await twoReleases((file, release) => void python?.('alembic_agent.py', file, release === 1 ? 'one' : 'two'), 'alembic_version')
}, 120_000)

testWithPython('llm, its search included', async () => {
  const both = await pair()
  const [a, b] = both.files
  python?.('llm_agent.py', a, 'where do pelicans nest')
  await syncsEmpty(both, '_llm_migrations')
  python?.('llm_agent.py', b, 'what do zebras eat')
  await settle(both)
  python?.('llm_agent.py', a, 'and how do pelicans fish')
  await settle(both)
  for (const file of both.files) {
    const found = (word: string) => JSON.parse(python?.('llm', 'logs', 'list', '-d', file, '-q', word, '--json') ?? '') as unknown[]
    expect(found('pelicans')).toHaveLength(2)
    expect(found('zebras')).toHaveLength(1)
    expect(found('unicorns')).toEqual([])
    // It starts again, and has nothing left to do.
    python?.('llm_agent.py', file)
  }
  expect(all(a, 'SELECT id, prompt, response FROM responses ORDER BY id')).toEqual(
    all(b, 'SELECT id, prompt, response FROM responses ORDER BY id'),
  )
}, 120_000)
