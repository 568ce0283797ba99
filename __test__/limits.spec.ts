// What agents can cost a hub, as operators set it and agents meet it in JavaScript.

import { FederationHub, FederationHubServer } from '..'
import { connectAgent, openDatabase, rejection, startHub } from './support'

const NOTES = 'CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT)'

test('an agent for which there is no seat is told so, and comes back when it may', async () => {
  const server = await startHub({ limits: { maxAgentsPerTenant: 1 } })
  const first = await connectAgent(server, 'first')
  const second = new FederationHub(server.agentConfig({ agentId: 'second', tenantId: 'acme' }))
  const error = await rejection(second.connect())
  expect(error.code).toBe('ERR_FEDERATION_QUOTA')
  expect(error.message).toContain('maxAgentsPerTenant')
  expect(error.retryAfterMs).toBeGreaterThan(0)
  const other = new FederationHub(server.agentConfig({ agentId: 'other', tenantId: 'globex' }))
  await other.connect()
  await other.disconnect()
  await first.disconnect()
  await second.connect()
  expect(second.isConnected()).toBe(true)
  await second.disconnect()
})

test('a hub that is full says that it is the hub', async () => {
  const server = await startHub({ limits: { maxAgents: 1 } })
  await connectAgent(server, 'first')
  const second = new FederationHub(server.agentConfig({ agentId: 'second', tenantId: 'globex' }))
  const error = await rejection(second.connect())
  expect(error.code).toBe('ERR_FEDERATION_BUSY')
  expect(error.message).toContain('maxAgents')
})

test('what there is no room for stays with its agent, and pulls go on', async () => {
  const server = await startHub({ limits: { maxStoredBytesPerTenant: 4000 } })
  const [writer, other] = [await connectAgent(server, 'writer'), await connectAgent(server, 'other')]
  const [here, there] = [openDatabase(':memory:', NOTES), openDatabase(':memory:', NOTES)]
  there.exec("INSERT INTO notes VALUES ('small', 'of the other')")
  await other.sync(there)
  here.prepare("INSERT INTO notes VALUES ('large', ?)").run('x'.repeat(10_000))
  const error = await rejection(writer.sync(here))
  expect(error.code).toBe('ERR_FEDERATION_QUOTA')
  expect(error.message).toContain('maxStoredBytesPerTenant')
  expect(here.prepare('SELECT id FROM notes ORDER BY id').pluck().all()).toEqual(['large', 'small'])
})

test.each([
  ['maxAgents', 0],
  ['maxAgentsPerTenant', 1.5],
  ['maxConnectionsPerAddress', -1],
  ['maxTablesPerTenant', 1001],
  ['maxColumnsPerTenant', 0],
  ['maxReplicasPerTenant', 0.5],
  ['maxRowBytes', 100],
  ['maxBatchBytes', 1 << 30],
  ['maxRowsPerSecond', NaN],
  ['maxBytesPerSecond', 0],
  ['maxMemoryBytes', 1 << 20],
  ['maxStoredBytesPerTenant', Infinity],
  ['idleTimeoutMs', 1000],
  ['handshakeTimeoutMs', 0],
  ['frameTimeoutMs', 1e9],
] as const)('%s: %d is refused by name', async (name, value) => {
  const error = await rejection(FederationHubServer.ephemeral({ limits: { [name]: value } }))
  expect(error.code).toBe('ERR_FEDERATION_CONFIG')
  expect(error.message).toContain(`limits.${name}`)
})
