// `npm run bench`: how fast a sync is, side by side with what it cannot be faster than. `--json` for every sample.
//
// The two sides of a comparison take turns within one run (ABAB...), so that whatever else the machine does meets
// both. Nothing here passes or fails by time.

import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';

import { bulkInserts, capture, pull, push } from './bulk.mjs';
import { Floor } from './floor.mjs';
import { BenchHub } from './hub.mjs';
import { machine, printHeader, printJson, printResult, printText } from './report.mjs';
import { retired } from './retired.mjs';
import { idleSync, oneRowSync } from './round-trips.mjs';
import { pullWithIndex, pullWithoutIndex } from './search.mjs';
import { result } from './statistics.mjs';
import { uniqueValues } from './unique.mjs';

const asJson = process.argv.includes('--json');
// Everything durable lies here, on one disk. TMPDIR says which; one in memory would make fsync a fiction.
const folder = await mkdtemp(path.join(os.tmpdir(), 'federation-hub-bench-'));
const hub = await BenchHub.start(path.join(folder, 'hub.db'));
const floor = await Floor.start(path.join(folder, 'floor.db'));
const setting = { hub, floor, folder };

try {
  const facts = await machine(folder);
  if (!asJson) printHeader(facts);
  const results = [];
  const comparisons = [idleSync, oneRowSync, push, pull, capture, ...uniqueValues, pullWithoutIndex, pullWithIndex];
  for (const comparison of comparisons) {
    results.push(result(await comparison(setting)));
    if (!asJson) printResult(results.at(-1));
  }
  const gone = retired(folder);
  if (!asJson) printText(gone);
  if (asJson) printJson(facts, results, gone);
} finally {
  bulkInserts.close();
  await floor.stop();
  await hub.stop();
  await rm(folder, { recursive: true, force: true });
}
