// How the story looks on a terminal; plain text where there is none, or where NO_COLOR is set.

import { inspect, isDeepStrictEqual } from 'node:util';

const WIDTH = 78;
const MARGIN = '     ';

const colourful = Boolean(process.stdout.isTTY) && !process.env.NO_COLOR && process.env.TERM !== 'dumb';
const paint = (code) => (text) => (colourful ? `\u001b[${code}m${text}\u001b[0m` : text);
const bold = paint('1');
const dim = paint('2');
const red = paint('31');
const green = paint('32');

const NAME_COLOURS = { ada: paint('36'), ben: paint('33'), cleo: paint('35'), zoe: paint('34'), hub: paint('1') };
const named = (name) => (NAME_COLOURS[name] ?? bold)(name.padEnd(5));

let scenes = 0;
let checks = 0;
let failures = 0;

/** The beginning. */
export function title(name, text) {
  print('', bold(`  ${name}`), dim(`  ${'─'.repeat(WIDTH - 2)}`));
  prose(text);
}

/** A new scene, and what it is about. */
export function scene(name, text) {
  scenes += 1;
  print('', `  ${bold(`${scenes}  ${name}`)}`);
  prose(text);
  print('');
}

/** A paragraph. */
export function prose(text) {
  for (const line of wrapped(text, WIDTH - MARGIN.length)) print(`${MARGIN}${line}`);
}

/** Somebody does something. */
export function act(name, text) {
  const [first, ...more] = wrapped(text, WIDTH - MARGIN.length - 7);
  print(`${MARGIN}${named(name)}  ${first}`);
  for (const line of more) print(`${MARGIN}       ${line}`);
}

/** What a sync did. */
export function synced(name, report) {
  const { pushed, pulled, conflicts, durationMs, bytesSent, bytesReceived } = report;
  const traffic = `sent ${count(pushed, 'row')}, received ${count(pulled, 'row')}`;
  const reported = conflicts > 0 ? `, ${count(conflicts, 'conflict')} reported` : '';
  const cost = `${(bytesSent + bytesReceived).toLocaleString('en')} bytes, ${durationMs.toFixed(1)} ms`;
  print(`${MARGIN}${named(name)}  ${bold('sync')}: ${traffic}${reported}  ${dim(`(${cost})`)}`);
}

/** An expectation of the story. One that fails makes the demo fail. */
export function check(text, actual, expected = true) {
  checks += 1;
  const ok = isDeepStrictEqual(actual, expected);
  if (!ok) failures += 1;
  const [first, ...more] = wrapped(text, WIDTH - MARGIN.length - 2);
  print(`${MARGIN}${ok ? green('✓') : red('✗')} ${first}`);
  for (const line of more) print(`${MARGIN}  ${line}`);
  if (!ok) {
    const shown = (value) => inspect(value, { depth: 5, breakLength: Infinity });
    print(red(`${MARGIN}    expected ${shown(expected)}`), red(`${MARGIN}    found    ${shown(actual)}`));
  }
}

/** A table: rows of texts and numbers, the numbers to the right. */
export function table(header, rows) {
  const widths = header.map((head, at) => Math.max(head.length, ...rows.map((row) => String(row[at]).length)));
  const cell = (value, at) =>
    typeof value === 'number' ? String(value).padStart(widths[at]) : String(value).padEnd(widths[at]);
  const isNumber = (at) => typeof rows[0][at] === 'number';
  const heads = header.map((head, at) => (isNumber(at) ? head.padStart(widths[at]) : head.padEnd(widths[at])));
  print(`${MARGIN}${bold(heads.join('   ').trimEnd())}`);
  print(dim(`${MARGIN}${widths.map((width) => '─'.repeat(width)).join('───')}`));
  for (const row of rows) print(`${MARGIN}${row.map(cell).join('   ').trimEnd()}`);
  print('');
}

/** The end; true if every expectation held. */
export function end() {
  const verdict =
    failures === 0
      ? green(`All ${checks} expectations hold.`)
      : red(`${count(failures, 'expectation')} of ${checks} failed.`);
  print('', `  ${bold(verdict)}`, '');
  return failures === 0;
}

function count(number, noun) {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}

function wrapped(text, width) {
  const lines = [''];
  for (const word of text.split(/\s+/)) {
    const line = lines.at(-1);
    if (line === '') lines[lines.length - 1] = word;
    else if (line.length + 1 + word.length <= width) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines;
}

function print(...lines) {
  for (const line of lines) process.stdout.write(`${line}\n`);
}
