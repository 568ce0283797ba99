// Every kind of handle that sync() takes, behind one surface for the suite.


import Database from 'better-sqlite3'
import Libsql from 'libsql'
import initSqlJs, { type Database as SqlJsDatabase } from 'sql.js'

import type { BunSqliteHandle, SyncableDatabase } from '..'
import { createDatabase } from './agentdb_support'
import { cleanup, temporaryFile } from './support'

/** A database that a test has open. */
export interface Opened {
  /** What sync() is given. */
  target: SyncableDatabase | string
  /** Runs SQL as the application would. */
  exec(sql: string): void
  /** The rows of a query, as the driver gives them to the application. */
  rows(sql: string): unknown[][]
  close(): void
}

/** A database that an open handle of the application's is on. */
export interface OpenHandle extends Opened {
  target: SyncableDatabase
  /** Begins to read a query of many rows, and returns what reads the rest and counts all. */
  begin(sql: string): () => number
  /** Closes the handle and opens what is stored anew. */
  reopened(): OpenHandle
  /** Another connection to the same file, where there can be one. */
  another?(): Opened
}

export interface Kind {
  name: string
  /** Opens an empty database; one that can be reopened if `stored`. */
  open(): Promise<OpenHandle>
}

const isBun = 'bun' in process.versions

/** A release whose node:sqlite gives rows as arrays, which Node.js 20 has not. */
const hasNodeSqlite = !isBun && Number(process.versions.node.split('.')[0]) >= 22

/** The better-sqlite3 of this folder is compiled for one version of Node.js. */
const hasBetterSqlite3 = ((): boolean => {
  try {
    new Database(':memory:').close()
    return true
  } catch {
    return false
  }
})()

/** What better-sqlite3 and libsql have in common. */
interface Better {
  exec(sql: string): unknown
  prepare(sql: string): { raw(): { all(): unknown[] }; iterate(): IterableIterator<unknown> }
  close(): unknown
}

function better<Handle extends Better & SyncableDatabase>(file: string, open: (file: string) => Handle): OpenHandle {
  const db = open(file)
  cleanup(() => db.close())
  return {
    target: db,
    exec: (sql) => void db.exec(sql),
    rows: (sql) => db.prepare(sql).raw().all() as unknown[][],
    close: () => void db.close(),
    begin: (sql) => unfinished(db.prepare(sql).iterate()),
    reopened: () => {
      db.close()
      return better(file, open)
    },
    another: () => better(file, open),
  }
}

function unfinished(iterator: Iterator<unknown>): () => number {
  iterator.next()
  return () => {
    let count = 1
    while (!iterator.next().done) count += 1
    return count
  }
}

const betterSqlite3: Kind = {
  name: 'better-sqlite3',
  open: async () => better(temporaryFile(), (file) => new Database(file)),
}

const libsql: Kind = {
  name: 'libsql',
  open: async () => better(temporaryFile(), (file) => new Libsql(file)),
}

const nodeSqlite: Kind = {
  name: 'node:sqlite',
  open: async () => {
    // By this way because jest's own loader may not know the module.
    const { DatabaseSync } = process.getBuiltinModule('node:sqlite')
    const opened = (file: string, db = new DatabaseSync(file)): OpenHandle => {
      const close = (): void => {
        if (db.isOpen) db.close()
      }
      cleanup(close)
      return {
        target: db,
        exec: (sql) => db.exec(sql),
        rows: (sql) => {
          const statement = db.prepare(sql)
          statement.setReturnArrays(true)
          return statement.all() as unknown as unknown[][]
        },
        close,
        begin: (sql) => unfinished(db.prepare(sql).iterate()),
        reopened: () => {
          db.close()
          db.open()
          return opened(file, db)
        },
        another: () => opened(file),
      }
    }
    return opened(temporaryFile())
  },
}

/** What bun:sqlite's `Database` has, as far as the suite uses it. */
interface BunDatabase extends BunSqliteHandle {
  prepare(sql: string): { values(): unknown[][]; iterate(): IterableIterator<unknown>; finalize(): void }
  close(throwOnError?: boolean): void
}

const bunSqlite: Kind = {
  name: 'bun:sqlite',
  open: async () => {
    const { Database } = process.getBuiltinModule('bun:sqlite' as 'node:sqlite') as unknown as {
      Database: new (file: string) => BunDatabase
    }
    const opened = (file: string): OpenHandle => {
      const db = new Database(file)
      // This way it throws if a statement of ours were left that is not finalized.
      const close = (): void => db.close(true)
      cleanup(close)
      return {
        target: db,
        exec: (sql) => void db.exec(sql),
        rows: (sql) => {
          const statement = db.prepare(sql)
          try {
            return statement.values()
          } finally {
            statement.finalize()
          }
        },
        close,
        begin: (sql) => {
          const statement = db.prepare(sql)
          const rest = unfinished(statement.iterate())
          return () => {
            const count = rest()
            statement.finalize()
            return count
          }
        },
        reopened: () => {
          close()
          return opened(file)
        },
        another: () => opened(file),
      }
    }
    return opened(temporaryFile())
  },
}

type SqlJs = Awaited<ReturnType<typeof initSqlJs>>

/** A handle of sql.js, and what sync() is given for it. */
function sqlJs(SQL: SqlJs, data?: Uint8Array, db = new SQL.Database(data)): OpenHandle & { db: SqlJsDatabase } {
  cleanup(() => db.close())
  return {
    db,
    target: db,
    exec: (sql) => void db.run(sql),
    rows: (sql) => db.exec(sql)[0]?.values ?? [],
    close: () => db.close(),
    begin: (sql) => {
      const statement = db.prepare(sql)
      statement.step()
      return () => {
        let count = 1
        while (statement.step()) count += 1
        statement.free()
        return count
      }
    },
    reopened: () => {
      const stored = db.export()
      db.close()
      return sqlJs(SQL, stored)
    },
  }
}

const sqlJsKind: Kind = { name: 'sql.js', open: async () => sqlJs(await initSqlJs()) }

const oldSqlJsKind: Kind = {
  name: 'sql.js before 1.16, whose export() ends every statement',
  open: async () => sqlJs(await (jest.requireActual('sql.js-1.13') as typeof initSqlJs)()),
}

const agentdbWrapper: Kind = {
  name: "the wrapper that agentdb's createDatabase returns",
  open: async () => {
    const wrapped = (wrapper: AgentdbWrapper): OpenHandle => ({
      ...sqlJs(wrapper.db.constructor as never, undefined, wrapper.db),
      target: wrapper as unknown as { db: SqlJsDatabase },
      reopened: () => {
        const stored = wrapper.db.export()
        const { constructor } = wrapper.db as unknown as { constructor: new (data: Uint8Array) => SqlJsDatabase }
        wrapper.db.close()
        wrapper.db = new constructor(stored)
        return wrapped(wrapper)
      },
    })
    return wrapped((await createDatabase(':memory:')) as unknown as AgentdbWrapper)
  },
}

interface AgentdbWrapper {
  db: SqlJsDatabase
}

const holder: Kind = {
  name: 'an object that holds an object that holds a handle',
  open: async () => {
    const wrapped = (inner: OpenHandle): OpenHandle => ({
      ...inner,
      target: { database: { raw: inner.target } },
      reopened: () => wrapped(inner.reopened()),
    })
    return wrapped(await (isBun ? bunSqlite : hasBetterSqlite3 ? betterSqlite3 : nodeSqlite).open())
  },
}

/** The kinds that there are under this runtime. */
export const KINDS: Kind[] = [
  ...(hasBetterSqlite3 ? [betterSqlite3] : []),
  ...(hasNodeSqlite ? [nodeSqlite] : []),
  ...(isBun ? [bunSqlite] : []),
  libsql,
  sqlJsKind,
  oldSqlJsKind,
  agentdbWrapper,
  holder,
]

/** What the other kinds are compared with. */
export const REFERENCE: Kind = hasBetterSqlite3 ? betterSqlite3 : libsql

/** A path, with a handle that is open only while the test uses it. */
export async function openPath(): Promise<Opened> {
  const file = temporaryFile()
  const using = <Result>(work: (db: Database.Database) => Result): Result => {
    const db = new Database(file)
    try {
      return work(db)
    } finally {
      db.close()
    }
  }
  return {
    target: file,
    exec: (sql) => void using((db) => db.exec(sql)),
    rows: (sql) => using((db) => db.prepare(sql).raw().all() as unknown[][]),
    close: () => undefined,
  }
}
