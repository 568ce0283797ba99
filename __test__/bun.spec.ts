// bun:sqlite: its tests run under Bun.

import path from 'node:path'

import { install, runSuite } from './runtimes'

const folder = path.join(__dirname, 'bun')
const bun = path.join(folder, 'node_modules', 'bun', 'bin', 'bun.exe')

beforeAll(() => install(folder, bun), 120_000)

test('the suite of all handles, with bun:sqlite among them', () => {
  const output = runSuite(bun, ['no kind', 'bun:sqlite'])
  expect(output).toMatch(/^ +bun:sqlite, an open handle$/m)
}, 300_000)
