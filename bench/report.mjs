// How the figures look.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import os from 'node:os';

const NAME_WIDTH = 52;

/** What the figures depend on. */
export async function machine(folder) {
  const cpus = os.cpus();
  const { type } = await statfs(folder);
  return {
    cpu: cpus[0]?.model.trim() ?? 'unknown',
    cores: cpus.length,
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    system: `${os.type()} ${os.release()} ${os.arch()}`,
    node: process.version,
    rustc: execFileSync('rustc', ['--version'], { encoding: 'utf8' }).trim(),
    version: JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version,
    fileSystemType: `0x${type.toString(16)}`,
    loadAverage: os.loadavg().map((load) => Math.round(load * 100) / 100),
  };
}

/** The machine, and what the columns mean. */
export function printHeader(facts) {
  print(
    '',
    `  federation-hub ${facts.version}: ${facts.cpu}, ${facts.cores} cores, ${facts.memoryGiB} GiB`,
    `  ${facts.system}, Node.js ${facts.node}, ${facts.rustc}, load ${facts.loadAverage[0]}`,
    '  Hub, agent and floor in processes of their own, on loopback. Both sides of a comparison take turns.',
    ...(isBusy(facts) ? ['  THIS MACHINE IS BUSY with something else: do not quote these figures.'] : []),
    '',
    `  ${'ms'.padEnd(NAME_WIDTH)}${heading(['median', 'p99', 'rows/s', 'samples'])}`,
  );
}

/** Whether something else wants so much of the processor that figures mean little. */
function isBusy({ loadAverage, cores }) {
  return loadAverage[0] > cores / 2;
}

/** One comparison: subject, floor, ratio. */
export function printResult({ subject, floor, medianRatio, p99Ratio, roundRatios }) {
  const { p10, p50, p90 } = roundRatios;
  print(
    `  ${'─'.repeat(NAME_WIDTH + 40)}`,
    line(subject),
    line(floor),
    `  ${'ratio'.padEnd(NAME_WIDTH)}${heading([times(medianRatio), times(p99Ratio)])}`,
    `  ${'ratio round by round, 10th / 50th / 90th percentile'.padEnd(NAME_WIDTH)}${heading([p10, p50, p90].map(times))}`,
  );
}

/** What the columns of attacks mean. */
export function printHostileHeader(facts) {
  print(
    '',
    `  federation-hub ${facts.version}: ${facts.cpu}, ${facts.cores} cores, ${facts.memoryGiB} GiB`,
    `  ${facts.system}, Node.js ${facts.node}, ${facts.rustc}, load ${facts.loadAverage[0]}`,
    "  One-row syncs of another tenant's agent, quiet and attacked in turns; the hub's memory at its highest, before and in all.",
    ...(isBusy(facts) ? ['  THIS MACHINE IS BUSY with something else: do not quote these figures.'] : []),
    '',
    `  ${'ms'.padEnd(NAME_WIDTH)}${heading(['quiet p50', 'p99', 'attacked', 'p99', 'p99 ratio', 'MiB', 'peak MiB'])}  sent`,
  );
}

/** One attack. */
export function printAttack({ told, quiet, attacked, restMiB, peakMiB, bytes, count, refused }) {
  const cells = [quiet.p50, quiet.p99, attacked.p50, attacked.p99].map(duration);
  cells.push(times(attacked.p99 / quiet.p99), String(restMiB ?? '?'), String(peakMiB ?? '?'));
  const sent = `${count.toLocaleString('en')} (${refused.toLocaleString('en')} refused), ${(bytes / 2 ** 20).toFixed(1)} MiB`;
  print(`  ${told.padEnd(NAME_WIDTH)}${heading(cells)}  ${sent}`);
}

/** What another program has to say. */
export function printText(lines) {
  print('', ...lines);
}

/** Everything, samples in ms included. */
export function printJson(facts, results, gone) {
  print(JSON.stringify({ machine: facts, results, gone }, null, 2));
}

function line({ name, medianMs, p99Ms, rowsPerSecond, count }) {
  const perSecond = rowsPerSecond ? Math.round(rowsPerSecond).toLocaleString('en') : '';
  return `  ${name.padEnd(NAME_WIDTH)}${heading([duration(medianMs), duration(p99Ms), perSecond, String(count)])}`;
}

function times(ratio) {
  return `${ratio.toFixed(2)}×`;
}

function duration(ms) {
  return ms < 10 ? ms.toFixed(3) : ms.toFixed(1);
}

function heading(cells) {
  return cells.map((cell) => cell.padStart(10)).join('');
}

function print(...lines) {
  for (const one of lines) process.stdout.write(`${one}\n`);
}
