import { act, check, scene } from '../narrator.mjs';
import { A_WHILE_MS, sleep } from '../sleep.mjs';

export async function sameCell({ ada, ben }) {
  scene(
    'Two agents edit the same cell while apart',
    `Now they cannot both be right. The rule is: the later write wins, whoever syncs first. It is a rule that each
     agent can apply alone and that gives everyone the same result. What was overwritten is not passed over in
     silence: the sync reports a conflict.`,
  );
  act('ada', 'sets the note "deploy" to "Deploy on Wednesdays"');
  await ada.run('UPDATE notes SET body = ? WHERE id = ?', 'Deploy on Wednesdays', 'deploy');
  await sleep(A_WHILE_MS);
  act('ben', 'a moment later, without having seen that: "Deploy on Thursdays"');
  await ben.run('UPDATE notes SET body = ? WHERE id = ?', 'Deploy on Thursdays', 'deploy');
  const bens = await ben.sync();
  const adas = await ada.sync();
  await ben.sync();

  for (const agent of [ada, ben]) {
    const { body } = await agent.get('SELECT body FROM notes WHERE id = ?', 'deploy');
    check(`${agent.name} reads "Deploy on Thursdays", the later write`, body, 'Deploy on Thursdays');
  }
  check('Ada, who synced second, is told of one conflict', [bens.conflicts, adas.conflicts], [0, 1]);
}
