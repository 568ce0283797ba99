// FederationHubServer: starting, stopping, and what it issues.

import path from 'node:path'

import { FederationHub, FederationHubServer, type FederationHubServerOptions } from '..'
import { connectAgent, folder, openDatabase, rejection, startHub } from './support'

test('an ephemeral hub listens on a free loopback port', async () => {
  const [one, two] = [await startHub(), await startHub()]
  expect(one.endpoint).toMatch(/^quic:\/\/127\.0\.0\.1:[1-9]\d*$/)
  expect(two.endpoint).not.toBe(one.endpoint)
})

test('the statistics count agents, tenants and rows', async () => {
  const server = await startHub()
  expect(server.getStats()).toMatchObject({ connectedAgents: 0, rows: 0 })
  const hub = await connectAgent(server, 'agent')
  await hub.sync(openDatabase(':memory:', "CREATE TABLE notes (id TEXT PRIMARY KEY); INSERT INTO notes VALUES ('a')"))
  expect(server.getStats()).toMatchObject({ connectedAgents: 1, tenants: 1, rows: 1, uptime: expect.any(Number) })
  await server.stop()
  expect(server.getStats()).toMatchObject({ connectedAgents: 0, tenants: 0, rows: 0, uptime: 0 })
})

test('starting twice and stopping twice do no harm', async () => {
  const server = await startHub()
  const { endpoint } = server
  await server.start()
  expect(server.endpoint).toBe(endpoint)
  await Promise.all([server.stop(), server.start(), server.stop()])
  await server.stop()
  expect(server.getStats().uptime).toBe(0)
})

test('what it issues can be sent to another process', async () => {
  const server = await startHub()
  const config = server.agentConfig({ agentId: 'agent', tenantId: 'acme' })
  expect(config).toMatchObject({ endpoint: server.endpoint, agentId: 'agent', tenantId: 'acme', enableMTLS: true })
  const hub = new FederationHub(JSON.parse(JSON.stringify(config)))
  await hub.connect()
  await hub.disconnect()
})

test('a hub that is started again with its file and credentials has kept its rows', async () => {
  const directory = folder()
  const dataPath = path.join(directory, 'hub.db')
  const first = await startHub({ dataPath })
  const writer = await connectAgent(first, 'writer')
  await writer.sync(openDatabase(':memory:', "CREATE TABLE notes (id TEXT PRIMARY KEY); INSERT INTO notes VALUES ('a')"))
  await writer.disconnect()
  const credentials = first.credentials
  if (!credentials) throw new Error('an ephemeral hub has credentials')
  await first.stop()

  const second = await startHub({ dataPath, credentials: JSON.parse(JSON.stringify(credentials)) })
  const reader = await connectAgent(second, 'reader')
  const db = openDatabase()
  await reader.sync(db)
  expect(db.prepare('SELECT id FROM notes').pluck().all()).toEqual(['a'])
})

test.each([
  [undefined, 'options must be an object'],
  [{ dataPath: ':memory:' }, 'options.listen'],
  [{ listen: '127.0.0.1:0', dataPath: 7 }, 'options.dataPath'],
  [{ listen: '127.0.0.1:0', dataPath: ':memory:', credentials: {} }, 'options.credentials.caCertPem'],
])('the constructor refuses %j', (options, message) => {
  expect(() => new FederationHubServer(options as unknown as FederationHubServerOptions)).toThrow(message)
})

test.each([
  [{}, 'certPath'],
  [{ certPem: 'x' }, 'keyPath'],
  [{ certPem: 'x', keyPem: 'x' }, 'jwtSecret'],
  [{ certPath: '/nowhere/hub.crt', keyPem: 'x', jwtSecret: 'x'.repeat(32) }, '/nowhere/hub.crt'],
])('start() refuses %j', async (options, message) => {
  const server = new FederationHubServer({ listen: '127.0.0.1:0', dataPath: ':memory:', ...options })
  const error = await rejection(server.start())
  expect(error.message).toContain(message)
  expect(error.code).toMatch(/^ERR_FEDERATION_(CONFIG|HUB_START)$/)
})

test('start() tells why it cannot listen', async () => {
  const running = await startHub()
  const taken = running.endpoint.replace('quic://', '')
  expect(await rejection(FederationHubServer.ephemeral({ listen: taken }))).toMatchObject({
    code: 'ERR_FEDERATION_HUB_START',
  })
})

test('a hub without credentials issues none', async () => {
  const { hubCertPem, hubKeyPem } = await FederationHubServer.generateCredentials()
  const server = new FederationHubServer({
    listen: '127.0.0.1:0',
    dataPath: ':memory:',
    certPem: hubCertPem,
    keyPem: hubKeyPem,
    jwtSecret: 'a secret that nobody would ever guess',
  })
  expect(server.credentials).toBeNull()
  const issue = (): unknown => server.agentConfig({ agentId: 'agent', tenantId: 'acme' })
  expect(issue).toThrow('ephemeral()')
  expect(issue).toThrow(expect.objectContaining({ code: 'ERR_FEDERATION_CONFIG' }))
})
