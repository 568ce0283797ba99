// `npm run bench`: how fast a sync is, side by side with what it cannot be faster than. `--json` for every sample.
// `npm run bench -- hostile`: what a hostile tenant costs another one, see hostile.mjs.
//
// The two sides of a comparison take turns within one run (ABAB...), so that whatever else the machine does meets
// both. Nothing here passes or fails by time.

import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';

import { bulkInserts, capture, pull, push } from './bulk.mjs';
import { Floor } from './floor.mjs';
import { ATTACKS, hostile, summary } from './hostile.mjs';
import { BenchHub } from './hub.mjs';
import {
  machine,
  printAttack,
  printHeader,
  printHostileHeader,
  printJson,
  printResult,
  printText,
} from './report.mjs';
import { retired } from './retired.mjs';
import { idleSync, oneRowSync } from './round-trips.mjs';
import { pullWithIndex, pullWithoutIndex } from './search.mjs';
import { result } from './statistics.mjs';
import { uniqueValues } from './unique.mjs';

const asJson = process.argv.includes('--json');
// Everything durable lies here, on one disk. TMPDIR says which; one in memory would make fsync a fiction.
const folder = await mkdtemp(path.join(os.tmpdir(), 'federation-hub-bench-'));
try {
  await (process.argv.includes('hostile') ? attacks() : comparisons());
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function comparisons() {
  const hub = await BenchHub.start(path.join(folder, 'hub.db'));
  const floor = await Floor.start(path.join(folder, 'floor.db'));
  const setting = { hub, floor, folder };
  try {
    const facts = await machine(folder);
    if (!asJson) printHeader(facts);
    const results = [];
    const all = [idleSync, oneRowSync, push, pull, capture, ...uniqueValues, pullWithoutIndex, pullWithIndex];
    for (const comparison of all) {
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
  }
}

async function attacks() {
  const at = process.argv.indexOf('--seconds');
  const seconds = at < 0 ? 7 : Number(process.argv[at + 1]);
  if (!(seconds > 0)) throw new Error('--seconds takes a number of seconds for each attack, above 0');
  const wanted = ATTACKS.filter(([name]) => process.argv.includes(name));
  const facts = await machine(folder);
  if (!asJson) printHostileHeader(facts);
  const results = [];
  for (const attack of wanted.length > 0 ? wanted : ATTACKS) {
    results.push(await hostile(attack, folder, seconds));
    if (!asJson) printAttack(summary(results.at(-1)));
  }
  if (asJson) printJson(facts, results);
}
