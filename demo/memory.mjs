// What an agent remembers: the tables, and a stand-in for the model that turns text into numbers.

import { createHash } from 'node:crypto';

/** An ordinary application's schema: nothing in it knows of syncing. */
export const SCHEMA = `
  CREATE TABLE IF NOT EXISTS episodes (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    task      TEXT NOT NULL,
    reward    REAL NOT NULL,
    critique  TEXT,
    embedding BLOB NOT NULL
  );
  CREATE INDEX IF NOT EXISTS episodes_by_reward ON episodes(reward);

  CREATE TABLE IF NOT EXISTS skills (
    name         TEXT PRIMARY KEY,
    description  TEXT NOT NULL,
    uses         INTEGER NOT NULL DEFAULT 0,
    success_rate REAL
  );

  CREATE TABLE IF NOT EXISTS notes (
    id   TEXT PRIMARY KEY,
    body TEXT NOT NULL
  );
`;

const DIMENSIONS = 384;

/**
 * 384 floats, as an embedding model gives for a text: 1,536 bytes. These come from a hash instead, so that the
 * demo needs no model.
 */
export function embedding(text) {
  const floats = new Float32Array(DIMENSIONS);
  for (let i = 0; i < DIMENSIONS; i += 8) {
    const hash = createHash('sha256').update(`${i} ${text}`).digest();
    for (let j = 0; j < 8; j++) floats[i + j] = hash.readInt32LE(4 * j) / 2 ** 31;
  }
  return Buffer.from(floats.buffer);
}
