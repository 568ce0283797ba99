// An agent that runs a graph up to its interrupt, or resumes it, with its checkpoints in a file that it shares. What to do
// comes as JSON on the standard input, and what came of it goes to the standard output.

import { createRequire } from 'node:module'
import { text } from 'node:stream/consumers'

import { Annotation, Command, END, START, StateGraph, interrupt } from '@langchain/langgraph'
import { SqliteSaver } from '@langchain/langgraph-checkpoint-sqlite'

const require = createRequire(new URL('../../package.json', import.meta.url))
const Database = require('better-sqlite3')
const { FederationHub } = require('./index.js')

const { config, file, answer } = JSON.parse(await text(process.stdin))
let payments = 0

const State = Annotation.Root({
  receipt: Annotation({ reducer: (_, next) => next, default: () => '' }),
  approval: Annotation({ reducer: (_, next) => next, default: () => '' }),
})
// The two steps run side by side: the one is done, and the other waits for somebody's answer.
const graph = new StateGraph(State)
  .addNode('pay', () => {
    payments += 1
    return { receipt: `paid by ${config.agentId}` }
  })
  .addNode('ask', () => ({ approval: interrupt('May I?') }))
  .addEdge(START, 'pay')
  .addEdge(START, 'ask')
  .addEdge('pay', END)
  .addEdge('ask', END)

const db = new Database(file)
const hub = new FederationHub(config)
await hub.connect()
await hub.sync(db)
const app = graph.compile({ checkpointer: new SqliteSaver(db) })
const thread = { configurable: { thread_id: 'order-1' } }
const state = await app.invoke(answer === undefined ? {} : new Command({ resume: answer }), thread)
const { next } = await app.getState(thread)
const { notices } = await hub.sync(db)
await hub.disconnect()
db.close()
console.log(JSON.stringify({ payments, next, notices, receipt: state.receipt, approval: state.approval }))
