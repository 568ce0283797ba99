// What sync() takes is told by what a value can do; for everything else there is one clear error.

import Database from 'better-sqlite3'

import type { SyncableDatabase } from '..'
import { connectAgent, openDatabase, rejection, startHub } from './support'

/** libsql's asynchronous class, whose types its package lacks in part. */
const LibsqlPromise = jest.requireActual<new (path: string) => SyncableDatabase>('libsql/promise')

const ACCEPTED = 'better-sqlite3, node:sqlite, sql.js or libsql'

class Repository {
  constructor(readonly connection: unknown) {}
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
  ['an asynchronous handle', () => new LibsqlPromise(':memory:'), 'not a Database of another package or of an'],
  ['an object that holds an asynchronous handle', () => ({ db: new LibsqlPromise(':memory:') }), 'not an object'],
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

test.each(['db', 'database', 'raw'])('what is held as .%s is synced, and the object is looked at anew', async (name) => {
  const server = await startHub()
  const hub = await connectAgent(server, 'agent')
  const notes = 'CREATE TABLE notes (id TEXT PRIMARY KEY)'
  const holder = { [name]: openDatabase(':memory:', `${notes}; INSERT INTO notes VALUES ('a')`) }
  expect(await hub.sync(holder as unknown as SyncableDatabase)).toMatchObject({ pushed: 1 })
  holder[name] = openDatabase(':memory:', `${notes}; INSERT INTO notes VALUES ('b')`)
  expect(await hub.sync(holder as unknown as SyncableDatabase)).toMatchObject({ pushed: 1, pulled: 1 })
})
