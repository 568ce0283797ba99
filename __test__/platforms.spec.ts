// Systems that there is no addon for: simulated, in processes of their own, by what the loader finds out about a system.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'

import { cleanup } from './support'

const root = path.join(__dirname, '..')
const { PLATFORMS } = jest.requireActual<{ PLATFORMS: Array<[string, string, string]> }>('../platforms.js')

/** What `require('federation-hub')` throws, without the addon, after `before` has run, beside these packages. */
function loaded(before: string, packages: Record<string, string> = {}): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'platforms-'))
  cleanup(() => fs.rmSync(folder, { recursive: true }))
  const { files } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as { files: string[] }
  for (const name of ['package.json', ...files]) fs.cpSync(path.join(root, name), path.join(folder, name), { recursive: true })
  for (const [name, code] of Object.entries(packages)) {
    fs.mkdirSync(path.join(folder, 'node_modules', name), { recursive: true })
    fs.writeFileSync(path.join(folder, 'node_modules', name, 'index.js'), code)
  }
  const script = `${before}; try { require(${JSON.stringify(folder)}) } catch (error) { console.log(error.message) }`
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' })
  return stdout + stderr
}

const set = (name: string, value: string) => `Object.defineProperty(process, '${name}', { value: '${value}' })`
const intel = `${set('platform', 'linux')}; ${set('arch', 'x64')}`
const report = (header: object) => `process.report.getReport = () => ({ header: ${JSON.stringify(header)} })`
const glibc = report({ glibcVersionRuntime: '2.31' })

test.each([
  ['another processor', `${set('platform', 'linux')}; ${set('arch', 'riscv64')}`, {}, 'no addon for linux on riscv64'],
  ['another system', set('platform', 'sunos'), {}, 'no addon for sunos on'],
  ['musl', `${intel}; ${report({})}`, {}, 'no addon for Linux without glibc, such as Alpine'],
  ['no package', `${intel}; ${glibc}`, {}, 'the package with the addon is not installed'],
  [
    'a glibc that is too old',
    `${intel}; ${glibc}`,
    {
      'federation-hub-linux-x64-gnu':
        "throw new Error(\"/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found (required by x.node)\")",
    },
    "this system's glibc is 2.31, and the addon needs 2.34",
  ],
  [
    'an addon that is damaged',
    `${intel}; ${glibc}`,
    { 'federation-hub-linux-x64-gnu': "throw new Error('x.node: file too short')" },
    'the addon cannot be loaded (x.node: file too short)',
  ],
])('%s is named, with all that there is', (_, before, packages, message) => {
  const said = loaded(before, packages)
  expect(said).toContain('federation-hub cannot run here: ')
  expect(said).toContain(message)
  for (const [, , name] of PLATFORMS) expect(said).toContain(name)
})

test('what is said to be there is there, and in the README', () => {
  const packages = fs.readdirSync(path.join(root, 'npm')).map((name) => name.replace(/-(gnu|msvc)$/, ''))
  expect(packages.sort()).toEqual(PLATFORMS.map(([system, processor]) => `${system}-${processor}`).sort())
  const readme = fs.readFileSync(path.join(root, 'README.md'), 'utf8')
  for (const [, , name] of PLATFORMS) expect(readme).toContain(name)
})
