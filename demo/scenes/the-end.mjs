import { cellCount, differences, fingerprint } from '../contents.mjs';
import { check, scene, table } from '../narrator.mjs';

export async function theEnd({ ada, ben, cleo, zoe }) {
  scene(
    'What each of them holds now',
    `Everybody syncs once more. Then all databases are read and compared cell by cell, each float of each
     embedding included. Only the numbers of INTEGER PRIMARY KEY rows are left out: those are local.`,
  );
  for (const agent of [ada, ben, cleo, zoe]) await agent.sync();
  const held = new Map();
  for (const agent of [ada, ben, cleo, zoe]) held.set(agent, await agent.contents());

  const row = (agent, tenant) => {
    const tables = held.get(agent);
    const rows = ['episodes', 'skills', 'notes'].map((name) => tables[name]?.rows.length ?? 0);
    return [agent.name, tenant, ...rows, cellCount(tables), fingerprint(tables)];
  };
  process.stdout.write('\n');
  table(
    ['agent', 'tenant', 'episodes', 'skills', 'notes', 'cells', 'fingerprint'],
    [...[ada, ben, cleo].map((agent) => row(agent, 'acme')), row(zoe, 'globex')],
  );
  for (const other of [ben, cleo]) {
    check(`${other.name}'s database equals Ada's`, differences(held.get(other), held.get(ada)), []);
  }
  check("zoe's holds her own note and nothing else", cellCount(held.get(zoe)), 2);
}
