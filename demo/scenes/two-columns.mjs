import { act, check, scene } from '../narrator.mjs';

export async function twoColumns({ ada, ben }) {
  scene(
    'Two agents edit one row, in different columns',
    `While they are apart, Ada measures the skill "retry" anew and Ben words it better. What is compared is the
     cell, not the row: the two edits do not touch each other, and both survive.`,
  );
  act('ada', 'sets success_rate = 0.95');
  await ada.run('UPDATE skills SET success_rate = ? WHERE name = ?', 0.95, 'retry');
  act('ben', 'sets description = "Try again, waiting twice as long each time"');
  await ben.run(
    'UPDATE skills SET description = ? WHERE name = ?', 'Try again, waiting twice as long each time', 'retry',
  );
  const reports = [await ada.sync(), await ben.sync(), await ada.sync()];

  for (const agent of [ada, ben]) {
    check(
      `${agent.name} has the new rate and the new description`,
      await agent.get('SELECT success_rate AS rate, description FROM skills WHERE name = ?', 'retry'),
      { rate: 0.95, description: 'Try again, waiting twice as long each time' },
    );
  }
  check('nobody reports a conflict, since there is none', reports.map(({ conflicts }) => conflicts), [0, 0, 0]);
}
