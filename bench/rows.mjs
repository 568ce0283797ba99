// The rows: text, about 580 bytes each, the same in every run.

export const CREATE = 'CREATE TABLE memories (id TEXT PRIMARY KEY, kind TEXT, content TEXT, score REAL, at INTEGER)';
export const INSERT = 'INSERT INTO memories (id, kind, content, score, at) VALUES (@id, @kind, @content, @score, @at)';

const CONTENT_BYTES = 520;
const LETTERS = 'abcdefghijklmnopqrstuvwxyz';

let state = 1;

/** A small generator of its own (xorshift32), so that every run has the same rows. */
function random(below) {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % below;
}

// Made-up words: they compress about as text does.
const WORDS = Array.from({ length: 2000 }, () =>
  Array.from({ length: 2 + random(9) }, () => LETTERS[random(LETTERS.length)]).join(''),
);

function text(bytes) {
  let words = '';
  while (words.length < bytes) words += `${WORDS[random(WORDS.length)]} `;
  return words.slice(0, bytes);
}

/** One row; rows of different numbers have different keys. */
export function row(number) {
  return {
    id: `memory-${String(number).padStart(12, '0')}`,
    kind: number % 3 === 0 ? 'episode' : 'observation',
    content: text(CONTENT_BYTES),
    score: random(1000) / 1000,
    at: 1_700_000_000_000 + number,
  };
}

/** So many rows. */
export function rows(count) {
  return Array.from({ length: count }, (_, number) => row(number));
}

/** Inserts all of them in one transaction. */
export function insertAll(db, all) {
  const insert = db.prepare(INSERT);
  db.transaction(() => all.forEach((one) => insert.run(one)))();
}
