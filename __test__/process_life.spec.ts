// What keeps a process alive, and what survives the end of one, in processes of their own.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'

function start(script: string, ...flags: string[]) {
  const child = spawn(process.execPath, [...flags, path.join(__dirname, 'fixtures', 'life', script)])
  const output: string[] = []
  child.stdout.on('data', (chunk: Buffer) => output.push(chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => output.push(chunk.toString()))
  const ended = once(child, 'close').then(([code, signal]) => ({ code, signal, output: output.join('') }))
  return { child, ended }
}

test('a connected agent lets the process end, and a pending call does not', async () => {
  expect(await start('left_connected.js').ended).toEqual({ code: 0, signal: null, output: '100\n' })
})

test('a hub that serves keeps the process alive until it is stopped', async () => {
  const { child, ended } = start('serving.js')
  await once(child.stdout, 'data')
  child.kill('SIGTERM')
  expect(await ended).toEqual({ code: 0, signal: null, output: 'serving\nstopped\n' })
})

test('process.exit() in mid-sync is an orderly end', async () => {
  expect(await start('exit_in_mid_sync.js').ended).toEqual({ code: 7, signal: null, output: '' })
})

test('a synced handle can be collected', async () => {
  expect(await start('collected.js', '--expose-gc').ended).toEqual({ code: 0, signal: null, output: 'true\n' })
})

test('worker threads can be terminated in mid-sync', async () => {
  expect(await start('terminated_workers.js').ended).toEqual({ code: 0, signal: null, output: 'survived\n' })
}, 60_000)

test('a function for tokens keeps no process alive', async () => {
  expect(await start('token_function.js').ended).toEqual({ code: 0, signal: null, output: '100\n' })
})

test('worker threads can be terminated while a token is waited for', async () => {
  expect(await start('waiting_for_token.js').ended).toEqual({ code: 0, signal: null, output: 'survived\n' })
}, 60_000)

const onLinux = process.platform === 'linux' ? test : test.skip

onLinux('agents of a process share a socket, and those that are refused leave none behind', async () => {
  const output = 'ERR_FEDERATION_UNAUTHENTICATED 1\n'
  expect(await start('refused.js').ended).toEqual({ code: 0, signal: null, output })
})
