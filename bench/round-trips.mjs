// Comparisons of single round trips.

import { interleave, series } from './rounds.mjs';
import { CREATE, INSERT, row } from './rows.mjs';

/** `await sync()` with nothing new on either side. */
export async function idleSync({ hub, floor }) {
  const agent = await hub.agent('idle', 'idle');
  agent.db.exec(CREATE);
  agent.db.prepare(INSERT).run(row(0));
  await agent.sync();
  const samples = await interleave(20, () => floor.echo(100), () => series(100, agent.sync));
  await agent.end();
  return {
    name: 'idle sync',
    floorName: 'quinn echo, 64 bytes, mTLS, a fresh stream',
    samples,
  };
}

/** One row inserted, then `await sync()`: it is on the hub's disk when that resolves. The insert is timed too. */
export async function oneRowSync({ hub, floor }) {
  const agent = await hub.agent('one-row', 'one-row');
  agent.db.exec(CREATE);
  await agent.sync();
  const insert = agent.db.prepare(INSERT);
  let number = 0;
  const insertAndSync = () => {
    insert.run(row(number++));
    return agent.sync();
  };
  const samples = await interleave(40, () => floor.commit(12), () => series(12, insertAndSync));
  await agent.end();
  return {
    name: 'one-row insert and sync, durable',
    floorName: 'quinn echo + SQLite commit, WAL, synchronous=FULL',
    samples,
  };
}
