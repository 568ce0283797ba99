// What compiles without a cast, and what does not: `npm run test:types` reads this, nothing runs it.

import type { DatabaseSync } from 'node:sqlite'

import type BetterSqlite3 from 'better-sqlite3'
import type Libsql from 'libsql'
import type { Database as SqlJsDatabase } from 'sql.js'
import type { DataSource, EntityManager } from 'typeorm'

import type { FederationHub, SyncReport } from '..'

declare const hub: FederationHub
declare const betterSqlite3: BetterSqlite3.Database
declare const libsql: Libsql.Database
declare const nodeSqlite: DatabaseSync
declare const sqlJs: SqlJsDatabase

/** As agentdb's wrapper is. */
declare class Wrapper {
  db: SqlJsDatabase
  filename: string
  prepare(sql: string): { run(...params: unknown[]): unknown }
  exec(sql: string): unknown
  pragma(pragma: string): unknown
}

/** As frameworks' connections are. */
interface Connection {
  readonly database: { readonly raw: DatabaseSync }
}

declare const wrapper: Wrapper
declare const connection: Connection

/** As node-sqlite3's handle is: its methods take callbacks. */
interface CallbackDatabase {
  open: boolean
  prepare(sql: string, callback?: (error: Error | null) => void): { all(callback: () => void): unknown }
  exec(sql: string, callback?: (error: Error | null) => void): this
  close(callback?: (error: Error | null) => void): void
}

/** As the handle of a driver is whose methods return promises. */
interface AsyncDatabase {
  open: boolean
  inTransaction: boolean
  prepare(sql: string): Promise<{ reader: boolean; all(): Promise<unknown[]> }>
  exec(sql: string): Promise<void>
  pragma(sql: string): Promise<unknown>
}

/** As bun:sqlite's handle is. */
interface BunDatabase {
  readonly filename: string
  readonly handle: number
  readonly inTransaction: boolean
  query<Row>(sql: string): BunStatement<Row>
  prepare<Row>(sql: string): BunStatement<Row>
  exec(sql: string, ...params: Array<string | null>): { changes: number }
  serialize(name?: string): Buffer
  close(throwOnError?: boolean): void
}
interface BunStatement<Row> {
  all(...params: Array<string | null>): Row[]
  values(...params: Array<string | null>): Array<Array<string | bigint | null>>
  finalize(): void
}

/** As what Drizzle's `drizzle()` returns. */
interface Drizzle<Client> {
  select(): unknown
  transaction<Result>(work: (transaction: unknown) => Result): Result
  readonly $client: Client
}

/** As the handle of a driver is whose statements are made at once, and whose rows come later. */
interface LaterDatabase extends Omit<AsyncDatabase, 'prepare'> {
  prepare(sql: string): { reader: boolean; all(): Promise<unknown[]> }
}

declare const bunSqlite: BunDatabase
declare const onBetterSqlite3: Drizzle<BetterSqlite3.Database>
declare const onBun: Drizzle<BunDatabase>
declare const onLater: Drizzle<LaterDatabase>
declare const later: LaterDatabase
declare const dataSource: DataSource
declare const entityManager: EntityManager

declare const callbacks: CallbackDatabase
declare const asynchronous: AsyncDatabase

export const accepted: Array<Promise<SyncReport>> = [
  hub.sync('agent.db'),
  hub.sync(betterSqlite3),
  hub.sync(libsql),
  hub.sync(nodeSqlite),
  hub.sync(sqlJs),
  hub.sync(wrapper),
  hub.sync(connection),
  hub.sync({ db: betterSqlite3 }),
  hub.sync({ database: libsql }),
  hub.sync({ raw: { db: sqlJs } }),
  hub.sync(bunSqlite),
  hub.sync(onBetterSqlite3),
  hub.sync(onBun),
  hub.sync(dataSource),
  hub.sync(entityManager),
]

export const refused = [
  // @ts-expect-error a number is no database
  hub.sync(5),
  // @ts-expect-error neither is nothing
  hub.sync(undefined),
  // @ts-expect-error neither is an object that holds none
  hub.sync({}),
  // @ts-expect-error what it holds is no handle
  hub.sync({ db: 5 }),
  // @ts-expect-error a Promise is to be awaited first
  hub.sync(Promise.resolve(betterSqlite3)),
  // @ts-expect-error a handle whose methods take callbacks cannot be worked on in one turn
  hub.sync(callbacks),
  // @ts-expect-error nor can one whose methods return promises
  hub.sync(asynchronous),
  // @ts-expect-error nor one whose statements return promises
  hub.sync(later),
  // @ts-expect-error nor what holds it
  hub.sync(onLater),
  // @ts-expect-error nor what holds one
  hub.sync({ db: asynchronous }),
  // @ts-expect-error a class is no handle
  hub.sync(Database),
]

declare const Database: typeof BetterSqlite3
