// agentdb's own classes write to a memory that is synced: unchanged, over both kinds of handle that it knows.

import type { SyncableDatabase } from '..'
import { AgentMemory, createDatabase, seeded, type MemoryDatabase } from './agentdb_support'
import { connectAgent, openDatabase, startHub } from './support'

const HANDLES: Array<[string, () => Promise<unknown>]> = [
  ['better-sqlite3', async () => openDatabase()],
  ['the wrapper around sql.js', () => createDatabase(':memory:')],
]

const count = (db: MemoryDatabase, table: string): number =>
  (db.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n

test.each(HANDLES)('an agent writes over %s, and a second one receives it', async (_name, open) => {
  const server = await startHub()
  const [one, two] = [(await open()) as MemoryDatabase, (await open()) as MemoryDatabase]
  const memory = new AgentMemory(one, seeded(7))
  for (let step = 0; step < 100; step++) await memory.step()
  new AgentMemory(two, seeded(8))
  await (await connectAgent(server, 'one')).sync(one as unknown as SyncableDatabase)
  const report = await (await connectAgent(server, 'two')).sync(two as unknown as SyncableDatabase)
  expect(report).toMatchObject({ quarantined: 0, rejected: 0 })
  for (const table of ['episodes', 'episode_embeddings', 'skills', 'skill_embeddings', 'skill_links', 'causal_edges']) {
    expect([table, count(two, table)]).toEqual([table, count(one, table)])
    expect(count(one, table)).toBeGreaterThan(1)
  }
  expect(two.prepare('PRAGMA foreign_key_check').all()).toEqual([])
})
