// node:sqlite, which Node.js 20 has not: its tests run under Node.js 24, and under whichever release runs all others.

import path from 'node:path'

import { connectAgent, openDatabase, startHub } from './support'
import { EXACT, VALUES } from './handle_values'
import { install, run, runSuite } from './runtimes'

const { exactly } = jest.requireActual<{ exactly(rows: unknown): unknown }>('./fixtures/node_sqlite/exactly.cjs')

const folder = path.join(__dirname, 'node24')
const isWindows = process.platform === 'win32'
const node24 = path.join(folder, 'node_modules', 'node', 'bin', isWindows ? 'node.exe' : 'node')

beforeAll(() => install(folder, node24), 120_000)

test('the suite of all handles, with node:sqlite among them', () => {
  const output = runSuite(node24, ['no kind', 'node:sqlite', 'an object'])
  expect(output).toMatch(/^ +node:sqlite, an open handle$/m)
}, 300_000)

test('every value arrives exactly from better-sqlite3, and at it', async () => {
  const server = await startHub()
  const notes = 'CREATE TABLE notes (id TEXT PRIMARY KEY, value)'
  const insert = (side: string): string =>
    VALUES.map(([name, sql]) => `; INSERT INTO notes VALUES ('${side}: ${name}', ${sql})`).join('')
  const db = openDatabase(':memory:', notes + insert('better-sqlite3'))
  const hub = await connectAgent(server, 'better-sqlite3')
  await hub.sync(db)
  const config = server.agentConfig({ agentId: 'node:sqlite', tenantId: 'acme' })
  const orders = JSON.stringify({ config, setUp: notes + insert('node:sqlite'), query: EXACT })
  const script = path.join(__dirname, 'fixtures', 'node_sqlite', 'agent.cjs')
  const there: unknown = JSON.parse(run(node24, ['--no-warnings', script], folder, orders))
  await hub.sync(db)
  const here = exactly(db.prepare(EXACT).raw().all())
  expect(there).toEqual(here)
  expect(here).toHaveLength(2 * VALUES.length)
})
