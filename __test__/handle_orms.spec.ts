// Objects of query builders and mappers, from their own packages: what they hold is found, or it is said where it is.

import 'reflect-metadata'

import Database from 'better-sqlite3'
import knexOf from 'knex'
import initSqlJs, { type Database as SqlJsDatabase } from 'sql.js'
import { DataSource } from 'typeorm'

import type { FederationHub, SyncableDatabase } from '..'
import { cleanup, connectAgent, openDatabase, rejection, startHub } from './support'

// Types that do not compile as this project's do, as far as they are used here.
const drizzle = {
  betterSqlite3: jest.requireActual<Drizzle<Database.Database>>('drizzle-orm/better-sqlite3').drizzle,
  sqlJs: jest.requireActual<{ drizzle(client: SqlJsDatabase): object }>('drizzle-orm/sql-js').drizzle,
}
interface Drizzle<Client> {
  drizzle(client: Client): { $client: Client }
}
const { Kysely, SqliteDialect } = jest.requireActual<{
  Kysely: new (options: { dialect: object }) => { destroy(): Promise<void> }
  SqliteDialect: new (options: { database: Database.Database }) => object
}>('kysely')

const NOTES = "CREATE TABLE notes (id TEXT PRIMARY KEY); INSERT INTO notes VALUES ('a')"

async function agent(): Promise<FederationHub> {
  return connectAgent(await startHub(), 'agent')
}

async function refused(database: unknown): Promise<string> {
  const error = await rejection((await agent()).sync(database as SyncableDatabase))
  expect(error).toMatchObject({ name: 'FederationError', code: 'ERR_FEDERATION_DATABASE' })
  return error.message
}

async function dataSource(options: ConstructorParameters<typeof DataSource>[0]): Promise<DataSource> {
  const source = new DataSource(options)
  cleanup(async () => {
    if (source.isInitialized) await source.destroy()
  })
  return source.initialize()
}

test('Drizzle on better-sqlite3: it and the handle are one database', async () => {
  const hub = await agent()
  const db = openDatabase(':memory:', NOTES)
  expect(await hub.sync(drizzle.betterSqlite3(db))).toMatchObject({ pushed: 1 })
  expect(await hub.sync(db)).toMatchObject({ pushed: 0, pulled: 0 })
})

test('Drizzle on sql.js', async () => {
  const SQL = await initSqlJs()
  const db = new SQL.Database()
  cleanup(() => db.close())
  db.run(NOTES)
  // It has no `$client`; its session holds the database, which its types do not say.
  const held = drizzle.sqlJs(db) as unknown as { db: SqlJsDatabase }
  expect(await (await agent()).sync(held)).toMatchObject({ pushed: 1 })
})

describe('TypeORM', () => {
  test('a DataSource on better-sqlite3, and its EntityManager', async () => {
    const hub = await agent()
    const source = await dataSource({ type: 'better-sqlite3', database: ':memory:' })
    await source.query('CREATE TABLE notes (id TEXT PRIMARY KEY)')
    await source.query("INSERT INTO notes VALUES ('a')")
    expect(await hub.sync(source)).toMatchObject({ pushed: 1 })
    await source.query("INSERT INTO notes VALUES ('b')")
    expect(await hub.sync(source.manager)).toMatchObject({ pushed: 1 })
  })

  test('a DataSource on sql.js', async () => {
    const source = await dataSource({ type: 'sqljs' })
    await source.query('CREATE TABLE notes (id TEXT PRIMARY KEY)')
    await source.query("INSERT INTO notes VALUES ('a')")
    expect(await (await agent()).sync(source)).toMatchObject({ pushed: 1 })
  })

  test('one that is not initialized, or not any more', async () => {
    const source = new DataSource({ type: 'better-sqlite3', database: ':memory:' })
    expect(await refused(source)).toContain('call `await dataSource.initialize()` first')
    await source.initialize()
    await source.destroy()
    expect(await refused({ db: source })).toContain('call `await dataSource.initialize()` first')
  })
})

test('Kysely: what was given to its dialect is to be passed', async () => {
  const database = openDatabase(':memory:', NOTES)
  const db = new Kysely({ dialect: new SqliteDialect({ database }) })
  for (const value of [db, { db }]) {
    expect(await refused(value)).toContain('not a Kysely: it keeps its handle to itself: pass the `database` that you')
  }
  expect(await (await agent()).sync(database)).toMatchObject({ pushed: 1 })
})

test('Knex: what its pool lends is to be passed', async () => {
  const knex = knexOf({ client: 'better-sqlite3', connection: { filename: ':memory:' }, useNullAsDefault: true })
  cleanup(() => knex.destroy())
  await knex.raw('CREATE TABLE notes (id TEXT PRIMARY KEY)')
  await knex('notes').insert({ id: 'a' })
  expect(await refused(knex)).toContain('not a Knex: its pool lends the handle: `const db = await knex.client.acquire')
  expect(await refused({ db: knex })).toContain('`await knex.client.releaseConnection(db)` in a `finally`')
  const db = (await knex.client.acquireConnection()) as Database.Database
  try {
    expect(await (await agent()).sync(db)).toMatchObject({ pushed: 1 })
  } finally {
    await knex.client.releaseConnection(db)
  }
})
