'use strict';

// Packages that read text only up to a NUL: a query is wrapped in one that gives such text as a blob, and says which
// it was.

/** How many columns one number tells of. */
const MASK_BITS = 32;

/** Whether this SQL, which returns rows, can be wrapped. */
function canBeWrapped(sql) {
  return /^\s*(SELECT|WITH)\b/i.test(sql);
}

/** A query that gives text with NULs as a blob; after its own columns, numbers whose bits tell where. */
function withNuls(sql, columns) {
  const names = Array.from({ length: columns }, (_, i) => `c${i}`);
  const hasNul = (name) => `(typeof(${name}) = 'text' AND instr(${name}, char(0)) > 0)`;
  const values = names.map((name) => `CASE WHEN ${hasNul(name)} THEN CAST(${name} AS BLOB) ELSE ${name} END`);
  const masks = [];
  for (let from = 0; from < columns; from += MASK_BITS) {
    const bits = names.slice(from, from + MASK_BITS).map((name, bit) => `(${hasNul(name)} << ${bit})`);
    masks.push(bits.join(' | '));
  }
  // On a line of its own, should the query end with a comment.
  return `WITH _federation_query (${names}) AS (${sql}
) SELECT ${[...values, ...masks]} FROM _federation_query`;
}

/** Turns a row of a query that was wrapped into the row that it would have given. */
function unwrap(row, columns) {
  const masks = row.splice(columns);
  masks.forEach((mask, i) => {
    for (let column = i * MASK_BITS, bits = BigInt(mask); bits > 0n; column += 1, bits >>= 1n) {
      if (bits & 1n) row[column] = textOf(row[column]);
    }
  });
}

/** The text that these bytes are. */
function textOf(bytes) {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}

module.exports = { canBeWrapped, textOf, unwrap, withNuls };
