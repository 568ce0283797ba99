// The process of the benchmark's hub. Each message asks for an agent's configuration.

import { FederationHubServer } from 'federation-hub';

const server = await FederationHubServer.ephemeral(JSON.parse(process.argv[2]));
process.on('message', (who) => {
  process.send({ ...server.agentConfig(who), metricsEndpoint: server.metricsEndpoint });
});
process.on('disconnect', () => server.stop());
process.send('started');
