// Handles that are closed, or permit no writing: what is told, and when.

import path from 'node:path'

import Database from 'better-sqlite3'

import { FederationHub } from '..'
import { cleanup, connectAgent, folder, openDatabase, rejection, startHub } from './support'

const NOTES = 'CREATE TABLE notes (id TEXT PRIMARY KEY, value)'

/** More than the test may take: whoever waits for that long fails. */
const requestTimeoutMs = 600_000

test.each([1, 2, 3, 4, 5, 6])('a handle that is closed after turn %d of a long sync makes it reject at once', async (last) => {
  const hub = await connectAgent(await startHub(), 'agent', { requestTimeoutMs })
  let turns = 0
  const db = new Database(':memory:', {
    verbose: (sql) => {
      if (!String(sql).startsWith('BEGIN')) return
      turns += 1
      if (turns === last) setImmediate(() => db.close())
    },
  })
  cleanup(() => db.close())
  db.exec(NOTES)
  db.exec(
    `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
     INSERT INTO notes SELECT 'note ' || i, hex(zeroblob(500)) FROM n`,
  )
  const error = await rejection(hub.sync(db))
  expect(error).toMatchObject({ code: 'ERR_FEDERATION_DATABASE' })
  expect(error.message).toContain('the database was closed during the sync')
  expect(db.open).toBe(false)
  const other = openDatabase(':memory:', `${NOTES}; INSERT INTO notes VALUES ('other', 1)`)
  expect(await hub.sync(other)).toMatchObject({ rejected: 0 })
})

test.each(['never synced', 'synced before'])('one that was closed before, and was %s, is told so', async (state) => {
  const hub = await connectAgent(await startHub(), 'agent')
  const db = openDatabase(':memory:', NOTES)
  if (state === 'synced before') await hub.sync(db)
  db.close()
  for (const target of [db, { db }]) {
    const error = await rejection(hub.sync(target))
    expect(error).toMatchObject({ code: 'ERR_FEDERATION_DATABASE' })
    expect(error.message).toContain('the database is closed: open it again')
  }
  expect((await rejection(FederationHub.detach(db))).message).toContain('the database is closed')
})

test.each(['never synced', 'synced before'])('a read-only handle of a database that was %s is told so', async (state) => {
  const directory = folder()
  const file = path.join(directory, 'agent.db')
  const server = await startHub()
  const hub = await connectAgent(server, 'agent')
  const writable = new Database(file)
  writable.exec(NOTES)
  if (state === 'synced before') await hub.sync(writable)
  writable.close()
  const other = openDatabase(':memory:', `${NOTES}; INSERT INTO notes VALUES ('news', 1)`)
  await (await connectAgent(server, 'other')).sync(other)
  const db = new Database(file, { readonly: true })
  cleanup(() => db.close())
  const error = await rejection(hub.sync(db))
  expect(error).toMatchObject({ code: 'ERR_FEDERATION_DATABASE' })
  expect(error.message).toMatch(/the agent's database is read-only .*open it for writing/)
})
