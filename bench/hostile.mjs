// `npm run bench -- hostile`: what a hostile agent of one tenant does to the agents of another one, and to the hub's memory.
// `--seconds N` for how long each attack is measured, and as long without it.
//
// Each attack meets a hub of its own, and takes turns with quiet (quiet, attacked, quiet...), so that whatever else the
// machine does meets both. Nothing here passes or fails by time.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

import { build } from './build.mjs';
import { BenchHub } from './hub.mjs';
import { CREATE, INSERT, row } from './rows.mjs';
import { quantile } from './statistics.mjs';

/** The attacks by the names that hostile.rs knows them by; the first is none, and tells how far the others can be trusted. */
export const ATTACKS = [
  ['nothing', 'connected, and silent'],
  ['decoded-size', 'batches of millions of empty values, compressed'],
  ['declarations', '1,000 tables of 1,899 columns, others each time'],
  ['network-thread', 'large frames that decode slowly and mean nothing'],
  ['partial-frames', '56 frames of 17 MiB less one byte, held'],
  ['deriving', 'a chain of 4,000 rows deleted by CASCADE, and back'],
  ['idle-metrics', '16 idle TCP connections to the metrics'],
  ['ratchet', 'stamps further and further ahead'],
  ['replicas', 'replicas of one agent, up to 30,000'],
  ['flood', 'batches of 250 rows and 1 MB, 8 agents'],
];

/** Turns of quiet and of attack. */
const TURNS = 2;

/** How long what an attack has left behind may go on, before the next quiet turn, in ms. */
const SETTLE_MS = 500;

/** Between two syncs, in ms: an agent that does nothing else would be its own attack. */
const PAUSE_MS = 2;

/** The attacker, in a process of its own. */
class Attacker {
  #process;
  #lines;

  static async start(config) {
    const attacker = new Attacker();
    attacker.#process = spawn(build('hostile'), { stdio: ['pipe', 'pipe', 'inherit'] });
    // On a machine of its own it would not take the hub's processors.
    os.setPriority(attacker.#process.pid, os.constants.priority.PRIORITY_LOW);
    attacker.#lines = createInterface({ input: attacker.#process.stdout })[Symbol.asyncIterator]();
    attacker.#process.stdin.write(`${JSON.stringify(config)}\n`);
    await attacker.#lines.next();
    return attacker;
  }

  /** Attacks for so long: `{ bytes, count, refused }`. */
  async attack(name, seconds) {
    this.#process.stdin.write(`${name} ${seconds}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('the attacker has ended; what it said is above');
    return JSON.parse(value);
  }

  async stop() {
    if (this.#process.exitCode !== null) return;
    this.#process.stdin.end();
    await once(this.#process, 'exit');
  }
}

/** One attack: its figures. */
export async function hostile([name, told], folder, seconds) {
  const hub = await BenchHub.start(path.join(folder, `${name}.db`), { metricsListen: '127.0.0.1:0' });
  const agent = await hub.agent('good', 'good');
  const attacker = await Attacker.start(await hub.config('attacker', 'evil'));
  agent.db.exec(CREATE);
  await agent.sync();
  const syncing = oneRowSyncs(agent);
  const figures = { name, told, quiet: [], attacked: [], bytes: 0, count: 0, refused: 0 };
  await syncing(() => sleep(SETTLE_MS));
  figures.restMiB = await memory(hub);
  for (let turn = 0; turn < TURNS; turn++) {
    figures.quiet.push(...(await syncing(() => sleep((1000 * seconds) / TURNS))));
    let cost;
    const attack = async () => (cost = await attacker.attack(name, seconds / TURNS));
    figures.attacked.push(...(await syncing(attack)));
    for (const key of ['bytes', 'count', 'refused']) figures[key] += cost[key];
    await sleep(SETTLE_MS);
  }
  figures.peakMiB = await memory(hub);
  await attacker.stop();
  await agent.end();
  await hub.stop();
  return figures;
}

/** Syncs of one row each, one after the other, until what goes on meanwhile has ended: their durations in ms. */
function oneRowSyncs(agent) {
  const insert = agent.db.prepare(INSERT);
  let number = 0;
  return async (meanwhile) => {
    let isOver = false;
    const end = meanwhile().finally(() => (isOver = true));
    const durations = [];
    while (!isOver) {
      const started = performance.now();
      insert.run(row(number++));
      await agent.sync();
      durations.push(performance.now() - started);
      await sleep(PAUSE_MS);
    }
    await end;
    return durations;
  };
}

/** The most memory that the hub's process has ever taken, in MiB; undefined where the system does not say. */
async function memory(hub) {
  const status = await readFile(`/proc/${hub.pid}/status`, 'utf8').catch(() => '');
  const kib = /^VmHWM:\s+(\d+)/m.exec(status)?.[1];
  return kib && Math.round(kib / 1024);
}

/** The quantiles that are told, in ms. */
export function summary({ quiet, attacked, ...rest }) {
  const of = (samples) => ({ count: samples.length, p50: quantile(samples, 0.5), p99: quantile(samples, 0.99) });
  return { ...rest, quiet: of(quiet), attacked: of(attacked) };
}
