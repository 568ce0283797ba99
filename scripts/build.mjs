// Builds the addon, its loader (native.js) and the types (index.d.ts). Cargo rebuilds only what has changed, so
// whatever needs the addon can call this first.
//
//   node scripts/build.mjs [--debug] [--check] [further options of `napi build`]
//
// --debug  a debug build, for development
// --check  fails if the generated files were not up to date

import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import path from 'node:path';

const root = fileURLToPath(new URL('..', import.meta.url));
const GENERATED = ['index.d.ts', 'native.js'];

const given = process.argv.slice(2);
const options = given.filter((option) => option !== '--debug' && option !== '--check');
if (!given.includes('--debug')) options.push('--release');

const before = GENERATED.map(read);
build();
hideMarker();
permitUndefined();
const stale = GENERATED.filter((name, i) => read(name) !== before[i]);
if (given.includes('--check') && stale.length > 0) {
  console.error(`${stale.join(' and ')} did not match the sources and has been generated anew: commit it`);
  process.exit(1);
}

/** What is passed to us may be undefined where it may be left out: `process.env.SECRET`, under exactOptionalPropertyTypes. */
function permitUndefined() {
  const passed = /^export interface (?:\w+Config|\w+Options|\w+Limits|RevocationTarget) \{$[\s\S]*?^\}$/gm;
  const permit = (text) => text.replace(/^(  \w+\?: )(.*[^\n;])$/gm, '$1$2 | undefined');
  writeFileSync(path.join(root, 'index.d.ts'), read('index.d.ts').replace(passed, permit));
}

function read(name) {
  try {
    return readFileSync(path.join(root, name), 'utf8');
  } catch {
    return '';
  }
}

function build() {
  const cli = path.join(root, 'node_modules', '@napi-rs', 'cli', 'dist', 'cli.js');
  const args = [cli, 'build', '--platform', '--js', 'native.js', '--dts', 'index.d.ts', ...options];
  // What is built goes to stderr, so that the output of a script that builds first is its own.
  const { status, error } = spawnSync(process.execPath, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (error) throw error;
  if (status !== 0) process.exit(status ?? 1);
}

/** The loader tells which file it has loaded; index.js does not pass that on, so its types must not either. */
function hideMarker() {
  const marker = /\/\*\*(?:(?!\*\/)[\s\S])*\*\/\nexport declare const __napiBindingTarget: [^\n]*\n\n/;
  writeFileSync(path.join(root, 'index.d.ts'), read('index.d.ts').replace(marker, ''));
}
