// What agents that are gone cost those that are here: see retired.rs.

import { spawnSync } from 'node:child_process';

import { build } from './build.mjs';

/** Lines of text. Takes some minutes: a million agents come and go (FEDERATION_RETIRED says how many). */
export function retired(folder) {
  const options = { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' };
  const { status, stdout, error } = spawnSync(build('retired'), [folder], options);
  if (error) throw error;
  if (status !== 0) throw new Error('bench/retired.rs failed; what it said is above');
  return stdout.trimEnd().split('\n');
}
