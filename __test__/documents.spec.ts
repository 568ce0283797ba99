// What is written down in two places says the same in both.

import fs from 'node:fs'
import path from 'node:path'

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
