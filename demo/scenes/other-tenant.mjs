import { act, check, scene } from '../narrator.mjs';

export async function otherTenant({ hub, ada, zoe }) {
  scene(
    'An agent of another company gets nothing',
    `Zoe works for "globex", and her token, signed by the hub's operator, says so. She talks to the very same hub.
     The token alone decides what she sees; there is no message in which she could ask for somebody else's rows.`,
  );
  const own = await hub.agentConfig('zoe', 'globex');
  act('zoe', 'claims to belong to acme, with her own token.');
  const refusal = await zoe.connect({ ...own, tenantId: 'acme' }).then(() => 'let in', ({ code }) => code);
  check('the hub refuses her', refusal, 'ERR_FEDERATION_UNAUTHENTICATED');

  await zoe.connect(own);
  const { pulled } = await zoe.sync();
  check('as an agent of globex she is let in, and receives nothing', pulled, 0);
  check("she has not even heard of acme's tables", await zoe.contents(), {});
  await zoe.createTables();
  act('zoe', 'writes a note of her own.');
  await zoe.note('secret', 'Globex buys acme in May');
  await zoe.sync();
  const { pulled: adas } = await ada.sync();
  const { n } = await ada.get('SELECT count(*) AS n FROM notes WHERE id = ?', 'secret');
  check('and nothing of hers reaches Ada', [adas, n], [0, 0]);
}
