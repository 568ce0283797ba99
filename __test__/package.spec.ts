// The package as it is published: packed, installed into an empty directory without a network, and used from
// TypeScript, ESM, CommonJS and jest.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'

const root = path.join(__dirname, '..')
const modules = path.join(root, 'node_modules')
const fixtures = path.join(__dirname, 'fixtures', 'consumer')

let consumer: string

function run(command: string, args: string[], cwd: string): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: 'utf8' })
  if (error) throw error
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}\n${stdout}\n${stderr}`)
  return stdout + stderr
}

function node(...args: string[]): string {
  return run(process.execPath, args, consumer)
}

/** Packs a folder and returns the tarball's path. */
function pack(folder: string): string {
  const packed = run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', consumer], folder)
  const [{ filename }] = JSON.parse(packed.slice(packed.indexOf('['), packed.lastIndexOf(']') + 1)) as [
    { filename: string },
  ]
  return path.join(consumer, filename)
}

/** The platform's package: its folder in npm/, with the addon that was built here. */
function stagePlatformPackage(): string {
  const addon = fs.readdirSync(root).find((name) => name.endsWith('.node'))
  if (!addon) throw new Error('no addon has been built: run `npm run build`')
  const platform = addon.replace(/^federation-hub\.|\.node$/g, '')
  const staged = path.join(consumer, 'platform')
  fs.cpSync(path.join(root, 'npm', platform), staged, { recursive: true })
  fs.copyFileSync(path.join(root, addon), path.join(staged, addon))
  return staged
}

beforeAll(() => {
  consumer = fs.mkdtempSync(path.join(os.tmpdir(), 'federation-hub-consumer-'))
  const tarballs = [pack(root), pack(stagePlatformPackage())]
  fs.writeFileSync(path.join(consumer, 'package.json'), JSON.stringify({ name: 'consumer', private: true }))
  run('npm', ['install', '--offline', '--no-audit', '--no-fund', ...tarballs], consumer)
  // What a consumer has besides, from here instead of the network.
  for (const name of ['better-sqlite3', '@types/better-sqlite3', '@types/node', 'undici-types']) {
    const link = path.join(consumer, 'node_modules', name)
    fs.mkdirSync(path.dirname(link), { recursive: true })
    fs.symlinkSync(path.join(modules, name), link, 'dir')
  }
  fs.cpSync(fixtures, consumer, { recursive: true })
}, 120_000)

afterAll(() => fs.rmSync(consumer, { recursive: true, force: true }))

test('the package holds what is needed and nothing else', () => {
  const installed = path.join(consumer, 'node_modules', 'federation-hub')
  const files = fs.readdirSync(installed).sort()
  expect(files).toEqual(expect.arrayContaining(['index.d.ts', 'index.js', 'native.js', 'package.json']))
  expect(files.filter((name) => /\.(node|rs|toml)$|^(src|target|__test__|npm|scripts)$/.test(name))).toEqual([])
  const manifest = JSON.parse(fs.readFileSync(path.join(installed, 'package.json'), 'utf8'))
  expect(Object.keys(manifest.scripts ?? {}).filter((name) => /install|^prepare$/.test(name))).toEqual([])
})

test('a TypeScript project under --strict', () => {
  const flags = ['--strict', '--exactOptionalPropertyTypes', '--target', 'es2022', '--esModuleInterop']
  const tsc = path.join(modules, 'typescript', 'bin', 'tsc')
  for (const module of ['node16', 'commonjs']) {
    node(tsc, ...flags, '--module', module, '--types', 'node', '--outDir', 'out', 'types.ts')
    expect(JSON.parse(node('out/types.js').trim())).toEqual({
      code: 'ERR_FEDERATION_NOT_CONNECTED',
      pushed: 1,
      syncs: 1,
      own: 1,
      last: 'Disconnected from federation hub',
    })
  }
}, 120_000)

test('ESM and CommonJS', () => {
  const exports = 'FederationError,FederationHub,FederationHubServer'
  expect(node('esm.mjs').trim()).toBe(exports)
  expect(node('common.cjs').trim()).toBe(exports)
})

test('a jest test that ends by itself, with no handle left open', () => {
  const jest = path.join(modules, 'jest', 'bin', 'jest.js')
  const output = node(jest, '--rootDir', consumer, '--detectOpenHandles', '--no-watchman', 'agent.test.js')
  expect(output).toContain('1 passed')
  expect(output).not.toMatch(/open handle|did not exit|force/i)
}, 60_000)
