// `npm run demo`: a hub and four agents tell how memory is shared. Exits non-zero unless everything turns out as told.

import { withCast } from './cast.mjs';
import { act, end, title } from './narrator.mjs';
import { deleteAndEdit } from './scenes/delete-and-edit.mjs';
import { freshAgent } from './scenes/fresh-agent.mjs';
import { hubDies } from './scenes/hub-dies.mjs';
import { otherTenant } from './scenes/other-tenant.mjs';
import { sameCell } from './scenes/same-cell.mjs';
import { theEnd } from './scenes/the-end.mjs';
import { twoAgentsLearn } from './scenes/two-agents-learn.mjs';
import { twoColumns } from './scenes/two-columns.mjs';

const SCENES = [
  twoAgentsLearn, twoColumns, sameCell, deleteAndEdit, hubDies, freshAgent, otherTenant, theEnd,
];

await withCast(async (cast) => {
  title(
    'federation-hub: agents that share what they learn',
    `Five processes: a hub, and four agents that know each other through it alone. Each agent has its own SQLite
     database in memory. A sync sends what is new here and fetches what is new elsewhere, over QUIC, with
     certificates on both sides and a signed token.`,
  );
  process.stdout.write('\n');
  act('hub', `process ${cast.hub.pid}, at ${cast.hub.endpoint}, with its rows in a file`);
  for (const agent of [cast.ada, cast.ben, cast.cleo, cast.zoe]) act(agent.name, `process ${agent.pid}`);
  for (const scene of SCENES) await scene(cast);
});

process.exitCode = end() ? 0 : 1;
