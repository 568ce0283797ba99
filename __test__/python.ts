// A virtual environment of Python with the packages that a test runs, made once for each list of them.

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'

const FIXTURES = path.join(__dirname, 'fixtures', 'python')
const REQUIREMENTS = path.join(FIXTURES, 'requirements.txt')

/** Runs a program of the fixtures, and gives what it writes; it must succeed. */
export type Python = (program: string, ...args: string[]) => string

function run(command: string, args: string[], env: NodeJS.ProcessEnv = process.env): string {
  const done = spawnSync(command, args, { encoding: 'utf8', env })
  if (done.error) throw done.error
  if (done.status !== 0) throw new Error(`${command} ${args.join(' ')}\n${done.stdout}${done.stderr}`)
  return done.stdout
}

/** The environment's directory; made unless it is there. */
function environment(): string {
  const wanted = createHash('sha256').update(fs.readFileSync(REQUIREMENTS)).digest('hex').slice(0, 16)
  const cache = path.join(__dirname, '..', 'node_modules', '.cache')
  const place = path.join(cache, `federation-hub-python-${wanted}`)
  if (fs.existsSync(place)) return place
  // Whoever is killed here leaves nothing that looks finished; a script of an environment knows where it lies.
  const unfinished = `${place}.unfinished`
  fs.rmSync(unfinished, { recursive: true, force: true })
  run('python3', ['-m', 'venv', unfinished])
  run(path.join(unfinished, 'bin', 'python'), ['-m', 'pip', 'install', '-q', '--no-input', '-r', REQUIREMENTS])
  fs.renameSync(unfinished, place)
  return place
}

/**
 * Python with the packages; nothing where it cannot be had, which is said on standard error. Where
 * FEDERATION_PYTHON=required, as in CI, it has to be there.
 */
export function pythonWithPackages(): Python | undefined {
  try {
    const python = path.join(environment(), 'bin', 'python')
    const env = { ...process.env, PYTHONDONTWRITEBYTECODE: '1' }
    const file = (program: string) => (program.endsWith('.py') ? [path.join(FIXTURES, program)] : ['-m', program])
    return (program, ...args) => run(python, [...file(program), ...args], env)
  } catch (error) {
    if (process.env.FEDERATION_PYTHON === 'required') throw error
    const why = error instanceof Error ? error.message : String(error)
    process.stderr.write(`tests of Python packages are skipped: python3 with venv and pip is needed, and PyPI: ${why}\n`)
    return undefined
  }
}
