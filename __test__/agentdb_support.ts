// The npm package agentdb, as it is. It has no CommonJS, and its `exports` hide createDatabase and the schemas, so
// jest.config.js has its modules transformed and they are found by their files. What it depends on and no test
// reaches would download models or compile on installation: `overrides` in package.json puts a tiny package there.

import fs from 'node:fs'
import path from 'node:path'

const dist = path.join(path.dirname(require.resolve('agentdb/controllers')), '..')

/** What better-sqlite3's handles have, and the wrapper that agentdb puts around sql.js's. */
export interface MemoryDatabase {
  exec(sql: string): unknown
  prepare(sql: string): {
    run(...params: unknown[]): { changes: number; lastInsertRowid: number | bigint }
    get(...params: unknown[]): unknown
    all(...params: unknown[]): unknown[]
  }
}

/** A sql.js database within the wrapper that agentdb puts around it. It says on the console what it loads. */
export async function createDatabase(filename: string): Promise<MemoryDatabase> {
  const module = require(path.join(dist, 'db-fallback.js')) as { createDatabase: typeof createDatabase }
  const log = jest.spyOn(console, 'log').mockImplementation(() => undefined)
  try {
    return await module.createDatabase(filename)
  } finally {
    log.mockRestore()
  }
}

/** The SQL of agentdb's two schemas. */
export function agentdbSchema(): string {
  return ['schema.sql', 'frontier-schema.sql']
    .map((name) => fs.readFileSync(path.join(dist, 'schemas', name), 'utf8'))
    .join('\n')
}

/** Numbers from 0 to 1 that are the same for the same seed, which is at least 1. */
export type Random = () => number

export function seeded(seed: number): Random {
  let state = seed >>> 0
  return () => {
    // xorshift32
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    state >>>= 0
    return state / 2 ** 32
  }
}

export function pick<Item>(random: Random, items: readonly Item[]): Item {
  return items[Math.floor(random() * items.length)] as Item
}

interface Reflexion {
  storeEpisode(episode: Record<string, unknown>): Promise<number>
  pruneEpisodes(config: { minReward: number; maxAgeDays: number; keepMinPerTask: number }): number
}

interface Skills {
  createSkill(skill: Record<string, unknown>): Promise<number>
  updateSkillStats(id: number, success: boolean, reward: number, latencyMs: number): void
  linkSkills(link: Record<string, unknown>): void
  consolidateEpisodesIntoSkills(config: { minAttempts: number; minReward: number }): Promise<unknown>
}

interface Causal {
  addCausalEdge(edge: Record<string, unknown>): number
  createExperiment(experiment: Record<string, unknown>): number
  recordObservation(observation: Record<string, unknown>): void
  calculateUplift(experimentId: number): unknown
}

const TASKS = ['deploy', 'retry', 'review', 'translate', 'summarise']
const RELATIONSHIPS = ['prerequisite', 'alternative', 'refinement', 'composition']

/** The stand-in for a model: the same few numbers for the same text. */
const embedder = {
  embed: async (text: string): Promise<Float32Array> => {
    const random = seeded([...text].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) >>> 0, 7) || 1)
    return Float32Array.from({ length: 8 }, () => random() * 2 - 1)
  },
}

/** An agent's memory: agentdb's own classes over a database, and a generator of what an agent does with them. */
export class AgentMemory {
  readonly reflexion: Reflexion
  readonly skills: Skills
  readonly causal: Causal
  readonly #db: MemoryDatabase
  readonly #random: Random

  /** Makes agentdb's tables where they are missing, as its applications do. */
  constructor(db: MemoryDatabase, random: Random) {
    const { ReflexionMemory } = require('agentdb/controllers/ReflexionMemory')
    const { SkillLibrary } = require('agentdb/controllers/SkillLibrary')
    const { CausalMemoryGraph } = require('agentdb/controllers/CausalMemoryGraph')
    db.exec(agentdbSchema())
    db.exec('PRAGMA foreign_keys = ON')
    this.#db = db
    this.#random = random
    this.reflexion = new ReflexionMemory(db, embedder)
    this.skills = new SkillLibrary(db, embedder)
    this.causal = new CausalMemoryGraph(db)
  }

  /** Does one thing, drawn at random, and says what it was. */
  async step(): Promise<string> {
    const actions: Array<() => unknown> = [
      this.storeEpisode,
      this.storeEpisode,
      this.storeEpisode,
      this.createOrUseSkill,
      this.createOrUseSkill,
      this.linkSkills,
      this.addCausalEdge,
      this.experiment,
      this.consolidate,
      this.forget,
    ]
    const action = pick(this.#random, actions)
    await action.call(this)
    return action.name
  }

  async storeEpisode(): Promise<void> {
    const random = this.#random
    await this.reflexion.storeEpisode({
      sessionId: `session ${Math.floor(random() * 4)}`,
      task: pick(random, TASKS),
      input: `input ${random()}`,
      output: random() < 0.5 ? `output retry carefully ${random()}` : '',
      critique: random() < 0.5 ? `critique ${random()}` : '',
      reward: random(),
      success: random() < 0.6,
      latencyMs: Math.floor(random() * 1000),
      tokensUsed: Math.floor(random() * 1000),
      tags: [pick(random, TASKS)],
      metadata: { score: random() },
    })
  }

  /** Skills have few names, so that agents often create the same one apart. */
  async createOrUseSkill(): Promise<void> {
    const random = this.#random
    const name = `${pick(random, TASKS)} ${Math.floor(random() * 3)}`
    const known = this.#db.prepare('SELECT id FROM skills WHERE name = ?').get(name) as { id: number } | undefined
    if (known) {
      this.skills.updateSkillStats(known.id, random() < 0.5, random(), Math.floor(random() * 100))
      return
    }
    await this.skills.createSkill({
      name,
      description: `does ${name}`,
      signature: { inputs: {}, outputs: {} },
      code: `// ${random()}`,
      successRate: random(),
      uses: 1,
      avgReward: random(),
      avgLatencyMs: Math.floor(random() * 100),
    })
  }

  linkSkills(): void {
    const [parentSkillId, childSkillId] = [this.#anyId('skills'), this.#anyId('skills')]
    if (parentSkillId === null || childSkillId === null) return
    const relationship = pick(this.#random, RELATIONSHIPS)
    this.skills.linkSkills({ parentSkillId, childSkillId, relationship, weight: this.#random() })
  }

  addCausalEdge(): void {
    const [fromMemoryId, toMemoryId] = [this.#anyId('episodes'), this.#anyId('skills')]
    if (fromMemoryId === null || toMemoryId === null) return
    this.causal.addCausalEdge({
      fromMemoryId,
      fromMemoryType: 'episode',
      toMemoryId,
      toMemoryType: 'skill',
      similarity: this.#random(),
      uplift: this.#random() - 0.5,
      confidence: this.#random(),
      mechanism: 'drawn at random',
    })
  }

  experiment(): void {
    const [episodeId, known] = [this.#anyId('episodes'), this.#anyId('causal_experiments')]
    if (episodeId === null) return
    const experimentId =
      known ??
      this.causal.createExperiment({
        name: `experiment ${this.#random()}`,
        hypothesis: 'it helps',
        treatmentId: episodeId,
        treatmentType: 'episode',
        startTime: 1,
        sampleSize: 0,
        status: 'running',
      })
    const isTreatment = this.#random() < 0.5
    const outcomeValue = this.#random()
    this.causal.recordObservation({ experimentId, episodeId, isTreatment, outcomeValue, outcomeType: 'reward' })
    if (this.#random() < 0.2) this.causal.calculateUplift(experimentId)
  }

  async consolidate(): Promise<void> {
    await this.skills.consolidateEpisodesIntoSkills({ minAttempts: 3, minReward: 0.5 })
  }

  /** Deletes an episode, which cascades, or several of them at once. */
  forget(): void {
    const id = this.#anyId('episodes')
    // A skill may have been made from the episode, and keeps it: that foreign key has no action.
    const free = 'id NOT IN (SELECT created_from_episode FROM skills WHERE created_from_episode IS NOT NULL)'
    this.#db.prepare(`DELETE FROM episodes WHERE id = ? AND ${free}`).run(id)
    if (this.#random() < 0.2) this.reflexion.pruneEpisodes({ minReward: 0.2, maxAgeDays: -1, keepMinPerTask: 1 })
  }

  #anyId(table: string): number | null {
    const rows = this.#db.prepare(`SELECT id FROM ${table} ORDER BY id`).all() as Array<{ id: number }>
    return rows.length === 0 ? null : pick(this.#random, rows).id
  }
}
