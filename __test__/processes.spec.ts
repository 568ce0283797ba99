// What the package is for: agents in separate processes, each with a database in memory, and a hub in a third.

import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'

import type { FederationHubConfig, SyncReport } from '..'
import { cleanup, folder } from './support'

interface Reply<T> {
  value?: T
  error?: string
}

function start(script: string): ChildProcess {
  const child = fork(path.join(__dirname, 'fixtures', 'processes', script))
  cleanup(() => child.kill('SIGKILL'))
  return child
}

async function ask<T>(child: ChildProcess, message: object): Promise<T> {
  child.send(message)
  const [reply] = (await once(child, 'message')) as [T]
  return reply
}

interface Reach {
  endpoint: string
  credentials: object
  configs: FederationHubConfig[]
}

class Agent {
  readonly child = start('agent.js')

  private async do<T>(action: string, argument?: unknown): Promise<T> {
    const { value, error } = await ask<Reply<T>>(this.child, { action, argument })
    if (error !== undefined) throw new Error(error)
    return value as T
  }

  connect = (config: FederationHubConfig) => this.do<void>('connect', config)
  run = (sql: string) => this.do<void>('run', sql)
  rows = (sql: string) => this.do<object[]>('rows', sql)
  sync = () => this.do<SyncReport>('sync')
  open = (file: string) => this.do<void>('open', file)
  work = (what: { name: string; count: number; path?: string }) => this.do<string[]>('work', what)
}

const NOTES = 'CREATE TABLE IF NOT EXISTS notes(id TEXT PRIMARY KEY, title TEXT)'
const ALL = 'SELECT * FROM notes ORDER BY id'

test('rows travel between processes, and a hub that is killed has lost nothing of what it acknowledged', async () => {
  const directory = folder()
  const options = { dataPath: path.join(directory, 'hub.db') }
  let hub = start('hub.js')
  const first = await ask<Reach>(hub, { options, agents: ['ada', 'ben', 'cleo'] })

  const [ada, ben, cleo] = [new Agent(), new Agent(), new Agent()]
  await ada.connect(first.configs[0]!)
  await ben.connect(first.configs[1]!)
  await ada.run(`${NOTES}; INSERT INTO notes VALUES ('a', 'from ada')`)
  await ben.run(`${NOTES}; INSERT INTO notes VALUES ('b', 'from ben')`)
  expect(await ada.sync()).toMatchObject({ pushed: 1, pulled: 0 })
  expect(await ben.sync()).toMatchObject({ pushed: 1, pulled: 1 })

  hub.kill('SIGKILL')
  await once(hub, 'exit')
  hub = start('hub.js')
  const listen = first.endpoint.replace('quic://', '')
  await ask<Reach>(hub, { options: { ...options, listen, credentials: first.credentials }, agents: [] })

  // The agents notice by themselves; the third one never met the hub that was killed.
  expect(await ada.sync()).toMatchObject({ pushed: 0, pulled: 1 })
  await cleo.connect(first.configs[2]!)
  expect(await cleo.sync()).toMatchObject({ pulled: 2 })
  const expected = [
    { id: 'a', title: 'from ada' },
    { id: 'b', title: 'from ben' },
  ]
  for (const agent of [ada, ben, cleo]) expect(await agent.rows(ALL)).toEqual(expected)
}, 60_000)

test('an agent whose hub is gone keeps its memory, says so, and sends it once the hub is back', async () => {
  const directory = folder()
  const options = { dataPath: path.join(directory, 'hub.db') }
  let hub = start('hub.js')
  const { endpoint, credentials, configs } = await ask<Reach>(hub, { options, agents: ['ada', 'ben'] })
  const [ada, ben] = [new Agent(), new Agent()]
  await ada.connect({ ...configs[0]!, connectTimeoutMs: 500, requestTimeoutMs: 500 })
  await ada.run(`${NOTES}; INSERT INTO notes VALUES ('a', 'before')`)
  await ada.sync()

  hub.kill('SIGKILL')
  await once(hub, 'exit')
  await ada.run(`INSERT INTO notes VALUES ('b', 'meanwhile')`)
  await expect(ada.sync()).rejects.toThrow(/ERR_FEDERATION_(TIMEOUT|UNREACHABLE)/)

  hub = start('hub.js')
  await ask<Reach>(hub, { options: { ...options, listen: endpoint.replace('quic://', ''), credentials }, agents: [] })
  expect(await ada.sync()).toMatchObject({ pushed: 1 })
  await ben.connect(configs[1]!)
  expect(await ben.sync()).toMatchObject({ pulled: 2 })
}, 60_000)

test('agents that work ride through a restart by SIGTERM: no sync fails, and nothing is lost', async () => {
  const directory = folder()
  const options = { dataPath: path.join(directory, 'hub.db') }
  let hub = start('hub.js')
  const names = ['ada', 'ben', 'cleo']
  const { endpoint, credentials, configs } = await ask<Reach>(hub, { options, agents: [...names, 'late'] })
  let isOver = false
  const work = async (name: string, at: number): Promise<number> => {
    const agent = new Agent()
    await agent.connect({ ...configs[at]!, requestTimeoutMs: 60_000 })
    await agent.run(NOTES)
    let written = 0
    while (!isOver) {
      await agent.run(`INSERT INTO notes VALUES ('${name} ${++written}', 'x')`)
      expect(await agent.sync()).toMatchObject({ pushed: 1 })
      if (written === 1) begun()
    }
    return written
  }
  let waiting = names.length
  let begun = (): void => {}
  const haveBegun = new Promise<void>((resolve) => (begun = () => void (--waiting === 0 && resolve())))
  const working = Promise.all(names.map(work))
  await Promise.race([haveBegun, working])

  hub.kill('SIGTERM')
  expect(await once(hub, 'exit')).toEqual([0, null])
  hub = start('hub.js')
  await ask<Reach>(hub, { options: { ...options, listen: endpoint.replace('quic://', ''), credentials }, agents: [] })
  isOver = true
  const written = (await working).reduce((sum, count) => sum + count)
  const late = new Agent()
  await late.connect(configs[names.length]!)
  expect(await late.sync()).toMatchObject({ pulled: written })
}, 60_000)

// Breaks if an attach ends the sessions of others while they work, or if whoever lost its session attaches once only.
test.each(['handle', 'path'])('processes that sync one file at once, by its %s, wait for each other', async (by) => {
  const directory = folder()
  const file = path.join(directory, 'shared.db')
  const names = ['one', 'two', 'three']
  const { configs } = await ask<Reach>(start('hub.js'), { options: {}, agents: [...names, 'reader'] })
  const agents = names.map(() => new Agent())
  for (const [at, agent] of agents.entries()) {
    await agent.connect(configs[at]!)
    await agent.open(file)
  }
  await agents[0]!.run(NOTES)

  const count = 20
  const work = agents.map((agent, at) => agent.work({ name: names[at]!, count, ...(by === 'path' && { path: file }) }))
  expect(await Promise.all(work)).toEqual([[], [], []])

  const reader = new Agent()
  await reader.connect(configs[names.length]!)
  expect(await reader.sync()).toMatchObject({ pulled: names.length * count, quarantined: 0 })
}, 120_000)
