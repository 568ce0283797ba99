import { act, check, scene } from '../narrator.mjs';
import { A_WHILE_MS, sleep } from '../sleep.mjs';

export async function deleteAndEdit({ ada, ben }) {
  scene(
    'One deletes a row while another edits it',
    `A delete is a write like any other, and the same rule holds: if the edit came later, the row is back, whole,
     for everyone; if the delete came later, the row is gone.`,
  );
  await ada.note('vpn', 'The VPN needs a new certificate each May');
  await ada.note('printer', 'The printer on floor 2 is broken');
  await ada.sync();
  await ben.sync();
  act('ben', 'deletes the note "vpn".');
  await ben.run('DELETE FROM notes WHERE id = ?', 'vpn');
  act('ada', 'edits the note "printer".');
  await ada.run('UPDATE notes SET body = ? WHERE id = ?', 'The printer on floor 2 is repaired', 'printer');
  await sleep(A_WHILE_MS);
  act('ada', 'a moment later: edits "vpn", which Ben has deleted.');
  await ada.run('UPDATE notes SET body = ? WHERE id = ?', 'The VPN needs a new certificate each June', 'vpn');
  act('ben', 'at the same time: deletes "printer", which Ada has edited.');
  await ben.run('DELETE FROM notes WHERE id = ?', 'printer');
  await ben.sync();
  const adas = await ada.sync();
  await ben.sync();

  for (const agent of [ada, ben]) {
    check(
      `${agent.name} has "vpn" as Ada edited it, and no "printer"`,
      await agent.all(`SELECT id, body FROM notes WHERE id IN ('vpn', 'printer')`),
      [{ id: 'vpn', body: 'The VPN needs a new certificate each June' }],
    );
  }
  check('Ada is told of both conflicts', adas.conflicts, 2);
}
