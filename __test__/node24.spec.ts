// node:sqlite, which has what we need from Node.js 24 on: its tests run under a Node.js of that release.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'

import { connectAgent, openDatabase, startHub } from './support'
import { EXACT, VALUES } from './handle_values'

const { exactly } = jest.requireActual<{ exactly(rows: unknown): unknown }>('./fixtures/node_sqlite/exactly.cjs')

const folder = path.join(__dirname, 'node24')
const isWindows = process.platform === 'win32'
const node24 = path.join(folder, 'node_modules', 'node', 'bin', isWindows ? 'node.exe' : 'node')

function run(command: string, args: string[], cwd: string, input?: string): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    input,
    maxBuffer: 2 ** 26,
    shell: isWindows,
  })
  if (error) throw error
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}\n${stdout}\n${stderr}`)
  return stdout + stderr
}

beforeAll(() => {
  if (!fs.existsSync(node24)) run('npm', ['ci', '--no-audit', '--no-fund'], folder)
}, 120_000)

test('the suite of all handles, with node:sqlite among them', () => {
  const root = path.join(__dirname, '..')
  const runner = path.join(root, 'node_modules', 'jest', 'bin', 'jest.js')
  const suite = path.join(__dirname, 'handle_suite.spec.ts')
  const only = ['--testNamePattern', '^(no kind|node:sqlite|an object)']
  const output = run(node24, [runner, '--verbose', ...only, '--runTestsByPath', suite], root)
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
