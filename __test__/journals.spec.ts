// Migrators at work: each agent's own, on its own database, whatever others have migrated.

import knex from 'knex'
import { Kysely, Migrator, SqliteDialect, type Migration } from 'kysely'

import { connectAgent, openDatabase, startHub, temporaryFile, type Handle } from './support'

const NAMES = ['one', 'two']

/** A migration that adds a table, with a row of its agent's. */
function kyselyMigrations(): Record<string, Migration> {
  const adding = (name: string): Migration => ({
    up: async (db) => {
      await db.schema.createTable(name).addColumn('id', 'text', (column) => column.primaryKey()).execute()
    },
  })
  return Object.fromEntries(NAMES.map((name) => [name, adding(name)]))
}

async function migrateByKysely(database: Handle, count: number): Promise<unknown[]> {
  const db = new Kysely<unknown>({ dialect: new SqliteDialect({ database }) })
  const migrations = Object.fromEntries(Object.entries(kyselyMigrations()).slice(0, count))
  const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } })
  const { error, results } = await migrator.migrateToLatest()
  expect(error).toBeUndefined()
  return (results ?? []).map((result) => result.migrationName)
}

async function migrateByKnex(filename: string, count: number): Promise<unknown[]> {
  const db = knex({ client: 'better-sqlite3', connection: { filename }, useNullAsDefault: true })
  const adding = (name: string) => ({
    up: (knexed: typeof db) => knexed.schema.createTable(name, (table) => void table.text('id').primary()),
    down: async () => {},
  })
  const migrationSource = {
    getMigrations: async () => NAMES.slice(0, count),
    getMigrationName: (name: string) => name,
    getMigration: async (name: string) => adding(name),
  }
  try {
    const [, names] = (await db.migrate.latest({ migrationSource })) as [number, unknown[]]
    return names
  } finally {
    await db.destroy()
  }
}

function ids(db: Handle): unknown[] {
  return db.prepare('SELECT id FROM two ORDER BY id').pluck().all()
}

test('the migrator of kysely runs on each database, though another has been migrated', async () => {
  const server = await startHub()
  const [hubA, hubB] = [await connectAgent(server, 'a'), await connectAgent(server, 'b', { createSchema: false })]
  const [a, b] = [openDatabase(), openDatabase()]
  expect(await migrateByKysely(a, 1)).toEqual(['one'])
  expect(await migrateByKysely(b, 1)).toEqual(['one'])
  const report = await hubA.sync(a)
  expect(report.notices.join()).toContain('kysely_migration (kysely)')
  await hubB.sync(b)
  expect(await migrateByKysely(a, 2)).toEqual(['two'])
  a.exec("INSERT INTO two VALUES ('of a')")
  expect((await hubA.sync(a)).notices).toEqual([])
  await hubB.sync(b)
  expect(await migrateByKysely(b, 2)).toEqual(['two'])
  b.exec("INSERT INTO two VALUES ('of b')")
  await hubB.sync(b)
  await hubA.sync(a)
  expect([ids(a), ids(b)]).toEqual([['of a', 'of b'], ['of a', 'of b']])
})

test('a lock that a migrator of knex has left on one database locks no other', async () => {
  const server = await startHub()
  const [hubA, hubB] = [await connectAgent(server, 'a'), await connectAgent(server, 'b', { createSchema: false })]
  const [fileA, fileB] = [temporaryFile(), temporaryFile()]
  for (const file of [fileA, fileB]) expect(await migrateByKnex(file, 1)).toEqual(['one'])
  await hubA.sync(fileA)
  await hubB.sync(fileB)
  expect(await migrateByKnex(fileA, 2)).toEqual(['two'])
  const a = openDatabase(fileA)
  a.exec("UPDATE knex_migrations_lock SET is_locked = 1; INSERT INTO two VALUES ('of a')")
  await hubA.sync(a)
  await hubB.sync(fileB)
  expect(await migrateByKnex(fileB, 2)).toEqual(['two'])
  await hubB.sync(fileB)
  const b = openDatabase(fileB)
  expect(ids(b)).toEqual(['of a'])
})
