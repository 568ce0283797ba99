// What is written down in two places says the same in both, and what the README shows works when it is pasted.

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'

import ts from 'typescript'

import { cleanup } from './support'

const modules = path.join(__dirname, '..', 'node_modules')

function read(file: string): string {
  return fs.readFileSync(path.join(__dirname, '..', file), 'utf8')
}

function codesIn(text: string): string[] {
  return [...new Set(text.match(/ERR_FEDERATION_[A-Z_]+/g))].sort()
}

test('the types name every code that there is', () => {
  expect(codesIn(read('index.d.ts'))).toEqual(codesIn(read('src/node/error.rs')))
})

test('crate and package have one version', () => {
  const version = /^version = "([^"]+)"$/m.exec(read('Cargo.toml'))?.[1]
  const platforms = fs.readdirSync(path.join(__dirname, '..', 'npm')).map((name) => `npm/${name}/package.json`)
  for (const file of ['package.json', ...platforms]) expect(JSON.parse(read(file))).toMatchObject({ version })
})

test('the lock file pins no registry', () => {
  expect(read('package-lock.json')).not.toMatch(/"resolved"/)
})

describe('the README', () => {
  /** Its code, by the language. */
  const blocks = [...read('README.md').matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].map(([, language, code]) => ({
    language: String(language),
    code: String(code),
  }))
  const scripts = blocks.filter(({ language }) => language === 'js' || language === 'ts').map(({ code }) => code)
  let folder: string

  function run(command: string, args: string[], env: Record<string, string> = {}): string {
    const { status, stdout, stderr } = spawnSync(command, args, { cwd: folder, encoding: 'utf8', env: { ...process.env, ...env } })
    if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}\n${stdout}\n${stderr}`)
    return stdout
  }

  /** The code that begins with a file's name, in that file, with other addresses than it shows. */
  function write(name: string, change = (code: string) => code): void {
    const found = scripts.find((code) => code.startsWith(`// ${name}`))
    if (found === undefined) throw new Error(`the README has no ${name}`)
    fs.writeFileSync(path.join(folder, name), change(found))
  }

  beforeEach(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), 'readme-'))
    fs.writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ type: 'module' }))
    fs.mkdirSync(path.join(folder, 'node_modules', '@types'), { recursive: true })
    fs.symlinkSync(path.join(__dirname, '..'), path.join(folder, 'node_modules', 'federation-hub'))
    for (const name of ['better-sqlite3', '@types/better-sqlite3', '@types/node', 'undici-types', '@jest']) {
      fs.symlinkSync(path.join(modules, name), path.join(folder, 'node_modules', name))
    }
  })

  afterEach(() => fs.rmSync(folder, { recursive: true, force: true }))

  test('is TypeScript as `tsc --init` wants it, whole', () => {
    const tsc = path.join(modules, 'typescript', 'bin', 'tsc')
    run(process.execPath, [tsc, '--init'])
    expect(scripts.length).toBeGreaterThan(6)
    scripts.forEach((code, at) => fs.writeFileSync(path.join(folder, `block${at}.ts`), code))
    run(process.execPath, [tsc, '--noEmit', '-p', '.'])
  }, 120_000)

  test('runs, example by example', () => {
    write('sixty-seconds.mjs')
    expect(run(process.execPath, ['sixty-seconds.mjs'])).toBe("[ { id: 'deploy', body: 'Deploy on Tuesdays' } ]\n")
    const inATest = scripts.filter((code) => code.includes('@jest/globals'))
    expect(inATest).toHaveLength(1)
    const compilerOptions = { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022, esModuleInterop: true }
    const { outputText } = ts.transpileModule(String(inATest[0]), { compilerOptions })
    fs.writeFileSync(path.join(folder, 'readme.test.cjs'), outputText)
    const jest = [path.join(modules, 'jest', 'bin', 'jest.js'), '--rootDir', folder, '--testMatch', '**/*.test.cjs']
    run(process.execPath, [...jest, '--no-watchman', '--detectOpenHandles'])
    // What is complete and needs nobody else.
    const alone = scripts.filter((code) => /ephemeral\(\)|:memory:/.test(code) && !code.includes('@jest/globals'))
    expect(alone).toHaveLength(3)
    alone.forEach((code, at) => {
      fs.writeFileSync(path.join(folder, `alone${at}.mjs`), code)
      run(process.execPath, [`alone${at}.mjs`])
    })
  }, 60_000)

  test('leads to a real hub, step by step', async () => {
    const steps = blocks.filter(({ language }) => language === 'sh').map(({ code }) => code)
    const certificates = steps.filter((code) => code.includes('openssl req -x509'))
    expect(certificates).toHaveLength(1)
    run('bash', ['-ec', String(certificates[0])])
    write('token.mjs')
    write('hub.mjs', (code) => code.replace("'0.0.0.0:4433'", "'127.0.0.1:0'"))
    const env = { JWT_SECRET: run('openssl', ['rand', '-hex', '32']).trim() }
    const hub = spawn(process.execPath, ['hub.mjs'], { cwd: folder, env: { ...process.env, ...env } })
    cleanup(() => hub.kill('SIGKILL'))
    const [line] = (await once(hub.stdout, 'data')) as [Buffer]
    const endpoint = /quic:\/\/\S+/.exec(line.toString())?.[0]
    write('agent.mjs', (code) => code.replace('quic://hub.example.com:4433', String(endpoint)))
    const given = steps.find((code) => code.includes('FEDERATION_TOKEN='))
    const report = run('bash', ['-ec', `${given}\n"${process.execPath}" agent.mjs`], env)
    expect(report).toContain('pushed: 0')
    hub.kill('SIGTERM')
    expect(await once(hub, 'close')).toEqual([0, null])
  }, 60_000)
})
