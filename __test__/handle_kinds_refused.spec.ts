// What sync() takes is told by what a value can do; for everything else there is one clear error.

import Database from 'better-sqlite3'

import type { SyncableDatabase } from '..'
import { cleanup, connectAgent, openDatabase, rejection, startHub } from './support'

/** libsql's asynchronous class, whose types its package lacks in part. */
const LibsqlPromise = jest.requireActual<new (path: string) => SyncableDatabase>('libsql/promise')

const ACCEPTED = 'better-sqlite3, node:sqlite, bun:sqlite, sql.js or libsql'

const ASYNCHRONOUS = 'not a Database whose methods are asynchronous'

/** As the handles of drivers are whose statements are made at once, and whose rows come later. */
class Later extends Database {
  override prepare(sql: string): never {
    const statement = super.prepare(sql)
    const all = statement.all.bind(statement)
    return Object.assign(statement, { all: async (...params: unknown[]) => all(...params) }) as never
  }
}

/** As the handles of drivers are that know no integers but JavaScript's numbers. */
class Rounding extends Database {
  override prepare(sql: string): never {
    const statement = super.prepare(sql)
    return Object.assign(statement, { safeIntegers: () => statement }) as never
  }
}

class Repository {
  constructor(readonly storage: unknown) {}
}

const REFUSED: Array<[string, () => unknown, string]> = [
  ['nothing', () => undefined, 'not undefined'],
  ['null', () => null, 'not null'],
  ['a number', () => 5, 'not a value of type number'],
  ['an empty path', () => '', 'not an empty string'],
  ['a function', () => Database, 'not a value of type function'],
  ['an empty object', () => ({}), 'not an object that holds none'],
  ['an object without a prototype', () => Object.create(null), 'not an object that holds none'],
  ['an object that holds a handle elsewhere', () => new Repository(openDatabase()), 'not a Repository that holds none'],
  ['a promise of a handle', () => Promise.resolve(openDatabase()), 'not a Promise: await it first'],
  ['an asynchronous handle', () => new LibsqlPromise(':memory:'), ASYNCHRONOUS],
  ['an object that holds an asynchronous handle', () => ({ db: new LibsqlPromise(':memory:') }), ASYNCHRONOUS],
  ['a handle whose statements answer later', () => new Later(':memory:'), 'not a Later whose methods are asynchronous'],
  ['a handle that rounds integers', () => new Rounding(':memory:'), 'that changes values: an integer'],
  ['an object that holds itself', () => holdingItself(), 'not an object that holds none'],
]

function holdingItself(): unknown {
  const holder: { db?: unknown } = {}
  holder.db = holder
  return holder
}

test.each(REFUSED)('%s is refused', async (_name, value, described) => {
  const hub = await connectAgent(await startHub(), 'agent')
  const error = await rejection(hub.sync(value() as SyncableDatabase))
  expect(error).toMatchObject({ name: 'FederationError', code: 'ERR_FEDERATION_DATABASE' })
  expect(error.message).toContain(ACCEPTED)
  expect(error.message).toContain(described)
})

test('a getter that throws is not hidden', async () => {
  const hub = await connectAgent(await startHub(), 'agent')
  const holder = {
    get db(): SyncableDatabase {
      throw new Error('no connection yet')
    },
  }
  const error = await rejection(hub.sync(holder))
  expect(error.message).toContain('no connection yet')
})

test('a handle that changes values is refused also if it is busy when it is first met', async () => {
  const hub = await connectAgent(await startHub(), 'agent')
  const db = new Rounding(':memory:')
  cleanup(() => db.close())
  db.exec("CREATE TABLE notes (id TEXT PRIMARY KEY, value); INSERT INTO notes VALUES ('a', 9007199254740993), ('b', 1)")
  const rows = (db as Database.Database).prepare('SELECT * FROM notes').iterate()
  rows.next()
  const refused = rejection(hub.sync(db))
  await new Promise((resolve) => setTimeout(resolve, 20))
  rows.return?.()
  expect((await refused).message).toContain('changes values: an integer')
})

const HOLDERS = ['db', 'database', 'raw', '$client', 'client', 'driver', 'databaseConnection', 'connection', 'dataSource']

test.each(HOLDERS)('what is held as .%s is synced, and the object is looked at anew', async (name) => {
  const server = await startHub()
  const hub = await connectAgent(server, 'agent')
  const notes = 'CREATE TABLE notes (id TEXT PRIMARY KEY)'
  const holder = { [name]: openDatabase(':memory:', `${notes}; INSERT INTO notes VALUES ('a')`) }
  expect(await hub.sync(holder as unknown as SyncableDatabase)).toMatchObject({ pushed: 1 })
  holder[name] = openDatabase(':memory:', `${notes}; INSERT INTO notes VALUES ('b')`)
  expect(await hub.sync(holder as unknown as SyncableDatabase)).toMatchObject({ pushed: 1, pulled: 1 })
})
