'use strict';

// What a handle does to values, and whether it does it at once: found out through the handle itself when it is first
// met, because versions of one package differ, and one that changes values would change them for every agent.

/** What drivers have been seen to change: as SQL, and as JavaScript has it. */
const VALUES = [
  ['NULL', 'NULL', null],
  ['an integer', '7', 7n],
  ['an integer that no double holds', '-9007199254740993', -9007199254740993n],
  ['the greatest integer', '9223372036854775807', 9223372036854775807n],
  ['a double that is whole', '4294967296.0', 4294967296],
  ['minus zero', '-0.0', -0],
  ['infinity', '9e999', Infinity],
  ['empty text', "''", ''],
  ['text with a NUL', "'a' || char(0) || 'b'", 'a\0b'],
  ['text with a byte order mark', "char(65279) || 'a'", '\ufeffa'],
  ['text of more than one plane', 'char(129408)', '\u{1F980}'],
  // Without an address, as native code makes it: some take that for NULL.
  ['an empty blob', "x''", Buffer.from(new ArrayBuffer(0))],
  ['a blob', "x'00ff'", Buffer.from([0, 255])],
];

const LITERALS = VALUES.map(([, sql]) => sql);

/** For each value whether it was bound as what it is; then each as a query gives it; then as one gives back a bound one. */
const QUERY = `WITH bound (${LITERALS.map((_, i) => `b${i}`)}) AS (SELECT ${LITERALS.map(() => '?')})
  SELECT ${LITERALS.map((sql, i) => `typeof(b${i}) = typeof(${sql}) AND b${i} IS (${sql})`)},
    ${LITERALS}, ${LITERALS.map((_, i) => `b${i}`)} FROM bound`;

/**
 * Null if all is well; otherwise `{ isAsynchronous: true }`, or the values that come out changed. Throws what the
 * handle throws: it may be busy.
 */
function probe(surface) {
  const statement = surface.prepare(QUERY);
  if (typeof statement?.all !== 'function' || isPromise(statement)) return asynchronous(statement);
  statement.raw(true);
  statement.safeIntegers(true);
  const rows = statement.all(...VALUES.map(([, , value]) => value));
  if (!Array.isArray(rows)) return asynchronous(rows);
  const row = rows[0] ?? [];
  const count = VALUES.length;
  const changed = VALUES.filter(
    ([, , value], i) => Number(row[i]) !== 1 || !isSame(row[count + i], value) || !isSame(row[2 * count + i], value),
  );
  return changed.length === 0 ? null : { changed: changed.map(([name]) => name) };
}

/** What came instead of a statement or of rows will be rejected some time: that is nobody's concern. */
function asynchronous(value) {
  if (isPromise(value)) value.then(undefined, () => {});
  return { isAsynchronous: true };
}

function isPromise(value) {
  return typeof value?.then === 'function';
}

function isSame(given, value) {
  if (!(value instanceof Uint8Array)) return Object.is(given, value);
  return ArrayBuffer.isView(given) && Buffer.compare(Buffer.from(given.buffer, given.byteOffset, given.byteLength), value) === 0;
}

module.exports = { probe };
