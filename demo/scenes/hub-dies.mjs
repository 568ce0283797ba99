import { act, check, scene } from '../narrator.mjs';

export async function hubDies({ hub, ada, ben }) {
  scene(
    'The hub is killed',
    `The hub acknowledges a row only when it is safely on disk. So killing it in the rudest way loses nothing, and
     meanwhile agents go on working: their memory is their own.`,
  );
  const rows = (await hub.stats()).rows;
  act('hub', `process ${hub.pid} is killed (SIGKILL).`);
  await hub.kill();
  act('ada', 'writes a note, with nobody to tell.');
  await ada.note('outage', 'The hub was away; nobody noticed');
  await hub.restart();
  act('hub', `starts again on its file, as process ${hub.pid}.`);
  check('it still has every row', (await hub.stats()).rows, rows);
  await ada.sync();
  await ben.sync();
  check(
    'both agents have reconnected by themselves, and the note arrived',
    await ben.get('SELECT body FROM notes WHERE id = ?', 'outage'),
    { body: 'The hub was away; nobody noticed' },
  );
}
