import { act, check, scene } from '../narrator.mjs';

export async function twoAgentsLearn({ hub, ada, ben }) {
  scene(
    'Two agents learn different things',
    `Ada and Ben work for the same company, "acme". Each has an empty SQLite database in memory and writes to it
     as any program would. Note that both give their first episode the number 1: these are two different rows, and
     nobody's may get lost.`,
  );
  for (const agent of [ada, ben]) {
    await agent.connect(await hub.agentConfig(agent.name, 'acme'));
    await agent.createTables();
  }
  act('ada', 'learns from an episode, "fix the flaky login test", and picks up a skill, "retry".');
  await ada.learn('fix the flaky login test', 0.9, 'waiting for the network beats sleeping');
  await ada.run(
    'INSERT INTO skills (name, description, uses, success_rate) VALUES (?, ?, ?, ?)',
    'retry', 'Try again after a pause', 3, 0.5,
  );
  act('ben', 'learns from an episode, "speed up the report query", and writes a note.');
  await ben.learn('speed up the report query', 0.7, null);
  await ben.note('deploy', 'Deploy on Tuesdays');
  await ada.sync();
  await ben.sync();
  await ada.sync();

  for (const agent of [ada, ben]) {
    const tasks = await agent.all('SELECT task FROM episodes ORDER BY task');
    check(
      `${agent.name} remembers both episodes, the skill and the note`,
      {
        tasks: tasks.map(({ task }) => task),
        skills: await agent.all('SELECT name FROM skills'),
        notes: await agent.all('SELECT body FROM notes'),
      },
      {
        tasks: ['fix the flaky login test', 'speed up the report query'],
        skills: [{ name: 'retry' }],
        notes: [{ body: 'Deploy on Tuesdays' }],
      },
    );
  }
  const number = async (agent, task) => (await agent.get('SELECT id FROM episodes WHERE task = ?', task)).id;
  check(
    'the episode that an agent made itself keeps its number there, 1 in both cases',
    [await number(ada, 'fix the flaky login test'), await number(ben, 'speed up the report query')],
    [1, 1],
  );
}
