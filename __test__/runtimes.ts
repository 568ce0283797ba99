// Other runtimes than the one that runs the tests, from npm: each in a folder with a lock file of its own.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'

const isWindows = process.platform === 'win32'

/** Runs a command to its end and returns what it wrote. */
export function run(command: string, args: string[], cwd: string, input?: string): string {
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

/** Installs what a folder beside this file asks for, unless it is there. */
export function install(folder: string, binary: string): void {
  if (!fs.existsSync(binary)) run('npm', ['ci', '--no-audit', '--no-fund'], folder)
}

/** Runs the suite of all handles under another runtime, as far as its tests begin so. */
export function runSuite(runtime: string, beginnings: string[]): string {
  const root = path.join(__dirname, '..')
  const runner = path.join(root, 'node_modules', 'jest', 'bin', 'jest.js')
  const suite = path.join(__dirname, 'handle_suite.spec.ts')
  const only = ['--testNamePattern', `^(${beginnings.join('|')})`]
  return run(runtime, [runner, '--verbose', ...only, '--runTestsByPath', suite], root)
}
