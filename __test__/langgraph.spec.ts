// LangGraph's checkpoints in SQLite, as the package comes: a graph that one agent has interrupted, another one resumes.

import path from 'node:path'

import { install, run } from './runtimes'
import { folder, startHub } from './support'

const packages = path.join(__dirname, 'langgraph')

beforeAll(() => install(packages, path.join(packages, 'node_modules', '@langchain', 'langgraph')), 300_000)

interface Outcome {
  readonly payments: number
  readonly next: string[]
  readonly notices: unknown[]
  readonly receipt: string
  readonly approval: string
}

test('the step that was paid for before an interrupt is not run again by the agent that resumes', async () => {
  const server = await startHub()
  const directory = folder()
  const agent = (agentId: string, answer?: string): Outcome => {
    const config = server.agentConfig({ agentId, tenantId: 'acme' })
    const orders = JSON.stringify({ config, file: path.join(directory, `${agentId}.db`), answer })
    return JSON.parse(run(process.execPath, [path.join(packages, 'graph.mjs')], packages, orders)) as Outcome
  }
  expect(agent('ada')).toMatchObject({ payments: 1, next: ['ask'], notices: [] })
  const resumed = agent('ben', 'yes')
  expect(resumed).toEqual({ payments: 0, next: [], notices: [], receipt: 'paid by ada', approval: 'yes' })
  // And whoever comes later finds the graph at its end.
  expect(agent('cleo', 'yes')).toMatchObject({ payments: 0, next: [], receipt: 'paid by ada' })
}, 60_000)
