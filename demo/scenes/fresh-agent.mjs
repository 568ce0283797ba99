import { cellCount, differences } from '../contents.mjs';
import { act, check, scene } from '../narrator.mjs';

export async function freshAgent({ hub, ada, cleo }) {
  scene(
    'A fresh agent gets everything',
    `Agents come and go; what they learned stays. Cleo starts with an empty database in memory: no rows, not even
     tables. One sync later she knows what the others know, the tables and indexes included.`,
  );
  check('cleo has no tables', await cleo.all('SELECT name FROM sqlite_master'), []);
  await cleo.connect(await hub.agentConfig('cleo', 'acme'));
  await cleo.sync();

  const [adas, cleos] = [await ada.contents(), await cleo.contents()];
  check(`cleo's database equals Ada's in all ${cellCount(adas)} cells`, differences(cleos, adas), []);
  check(
    'the index came along',
    await cleo.all(`SELECT tbl_name AS "table" FROM sqlite_master WHERE name = 'episodes_by_reward'`),
    [{ table: 'episodes' }],
  );
  act('cleo', 'learns something of her own: "summarise the incident".');
  await cleo.learn('summarise the incident', 0.8, 'a timeline first, causes second');
  await cleo.sync();
  await ada.sync();
  const { n } = await ada.get('SELECT count(*) AS n FROM episodes WHERE task = ?', 'summarise the incident');
  check('ada remembers it too', n, 1);
}
