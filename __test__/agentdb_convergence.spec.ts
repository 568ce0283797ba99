// Three agents use agentdb's own classes, unchanged, and sync whenever they like: they end with one memory.

import type { SyncableDatabase } from '..'
import { AgentMemory, createDatabase, pick, seeded, type MemoryDatabase } from './agentdb_support'
import { shape, type ColumnReference } from './isomorphism'
import { connectAgent, openDatabase, startHub } from './support'

const MEMORIES = { episode: 'episodes', skill: 'skills' }

/** What no foreign key of agentdb's declares. */
const REFERENCES: ColumnReference[] = [
  { table: 'causal_edges', column: 'from_memory_id', by: 'from_memory_type', to: MEMORIES },
  { table: 'causal_edges', column: 'to_memory_id', by: 'to_memory_type', to: MEMORIES },
  { table: 'causal_experiments', column: 'treatment_id', by: 'treatment_type', to: MEMORIES },
]

const HANDLES: Array<[string, () => Promise<unknown>]> = [
  ['better-sqlite3', async () => openDatabase()],
  ['the wrapper around sql.js', () => createDatabase(':memory:')],
]

/** Syncs everybody until nobody has anything to send or to receive. */
async function settle(agents: Array<{ sync(): Promise<{ pushed: number; pulled: number }> }>): Promise<void> {
  for (let round = 0; round < 20; round++) {
    let moved = 0
    for (const agent of agents) {
      const { pushed, pulled } = await agent.sync()
      moved += pushed + pulled
    }
    if (moved === 0) return
  }
  throw new Error('the agents do not come to rest')
}

describe.each(HANDLES)('over %s', (_name, open) => {
  test.each([1, 2, 3])('three agents end with one memory (seed %d)', async (seed) => {
    const server = await startHub()
    const random = seeded(seed * 7919)
    const agents = []
    for (const name of ['one', 'two', 'three']) {
      const db = (await open()) as MemoryDatabase
      const memory = new AgentMemory(db, random)
      const hub = await connectAgent(server, name, { references: REFERENCES })
      agents.push({ db, memory, sync: () => hub.sync(db as unknown as SyncableDatabase) })
    }
    for (let step = 0; step < 240; step++) {
      const agent = pick(random, agents)
      await agent.memory.step()
      if (random() < 0.15) await agent.sync()
    }
    await settle(agents)
    const [first, ...others] = agents.map(({ db }) => shape(db, REFERENCES))
    for (const other of others) expect(other).toEqual(first)
    expect(first?.['skills']?.length).toBeGreaterThan(3)
    for (const { db } of agents) {
      expect(db.prepare('PRAGMA foreign_key_check').all()).toEqual([])
      expect(db.prepare('PRAGMA integrity_check').all()).toEqual([{ integrity_check: 'ok' }])
      expect(db.prepare('SELECT tbl, reason FROM _federation_quarantine').all()).toEqual([])
      expect(db.prepare('SELECT count(*) AS n FROM skills GROUP BY name HAVING n > 1').all()).toEqual([])
    }
  })
})
