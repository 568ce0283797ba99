// The hub's process.

import { FederationHubServer } from 'federation-hub';

import { serve } from './remote.mjs';

let server;

serve({
  async start(options) {
    server = new FederationHubServer(options);
    await server.start();
    return server.endpoint;
  },
  agentConfig: (who) => server.agentConfig(who),
  stats: () => server.getStats(),
});
