// FederationHub's surface, as code in the wild relies on it.

import { spawnSync } from 'node:child_process'
import path from 'node:path'

import pino from 'pino'

import { FederationError, FederationHub, type FederationHubConfig, type FederationLogger } from '..'
import { connectAgent, openDatabase, rejection, startHub } from './support'

const NOTES = 'CREATE TABLE notes (id TEXT PRIMARY KEY, text TEXT)'

const nowhere: FederationHubConfig = {
  endpoint: 'quic://127.0.0.1:4433',
  agentId: 'agent',
  tenantId: 'acme',
  token: 'a.b.c',
}

const PATHS = ['FEDERATION_CERT_PATH', 'FEDERATION_KEY_PATH', 'FEDERATION_CA_PATH']

afterEach(() => {
  for (const name of PATHS) delete process.env[name]
})

describe('before connect()', () => {
  test('the constructor takes anything, and does nothing with it yet', () => {
    for (const config of [undefined, {}, { endpoint: 1 }, { ...nowhere, certPath: '/nowhere' }]) {
      expect(new FederationHub(config as FederationHubConfig)).toBeInstanceOf(FederationHub)
    }
  })

  test('sync() rejects with the exact message', async () => {
    const error = await rejection(new FederationHub(nowhere).sync(openDatabase()))
    expect(error.message).toBe('Not connected to federation hub')
    expect(error).toMatchObject({ name: 'FederationError', code: 'ERR_FEDERATION_NOT_CONNECTED' })
    await expect(new FederationHub(nowhere).sync(openDatabase())).rejects.toThrow(Error)
    await expect(new FederationHub(nowhere).sync(openDatabase())).rejects.toThrow(FederationError)
  })

  test('an error shows who called', async () => {
    async function theCaller(): Promise<void> {
      await new FederationHub(nowhere).sync(openDatabase())
    }
    const { stack } = await rejection(theCaller())
    expect(stack).toContain('FederationError [ERR_FEDERATION_NOT_CONNECTED]: Not connected to federation hub\n')
    expect(stack).toContain('theCaller')
    expect(stack).toContain(__filename)
  })

  test('disconnect() is quiet, and the statistics are empty', async () => {
    const hub = new FederationHub(nowhere)
    await hub.disconnect()
    expect(hub.isConnected()).toBe(false)
    expect(hub.getSyncStats()).toEqual({ lastSyncTime: 0, vectorClock: {} })
  })
})

describe('the configuration', () => {
  test.each([
    [{ endpoint: undefined }, 'config.endpoint must be a non-empty string, not undefined'],
    [{ endpoint: 'https://hub.example.com' }, 'quic://'],
    [{ agentId: 7 }, 'config.agentId must be a non-empty string, not of type number'],
    [{ tenantId: '' }, 'config.tenantId must be a non-empty string, not an empty string'],
    [{ token: null }, 'config.token must be a non-empty string, not undefined'],
    [{ enableMTLS: 'yes' }, 'config.enableMTLS must be a boolean, not of type string'],
    [{ connectTimeoutMs: 0 }, 'connectTimeoutMs is 0'],
    [{ requestTimeoutMs: Number.NaN }, 'requestTimeoutMs is NaN'],
  ])('%j is refused by connect()', async (wrong, message) => {
    const config = { ...nowhere, enableMTLS: false, ...wrong } as unknown as FederationHubConfig
    const error = await rejection(new FederationHub(config).connect())
    expect(error).toMatchObject({ code: 'ERR_FEDERATION_CONFIG' })
    expect(error.message).toContain(message)
  })

  test('a secret never shows in the message that refuses it', async () => {
    const config = { ...nowhere, token: { secret: 'hush' } } as unknown as FederationHubConfig
    expect((await rejection(new FederationHub(config).connect())).stack).not.toContain('hush')
  })

  test('with mutual TLS on, what is missing is named, and how to give it', async () => {
    const all = await rejection(new FederationHub(nowhere).connect())
    expect(all).toMatchObject({ code: 'ERR_FEDERATION_CONFIG' })
    for (const name of [...PATHS, 'certPath', 'keyPath', 'caPath', 'enableMTLS: false']) {
      expect(all.message).toContain(name)
    }
    process.env['FEDERATION_CERT_PATH'] = '/nowhere/agent.crt'
    const key = await rejection(new FederationHub({ ...nowhere, caPath: '/nowhere/ca.crt' }).connect())
    expect(key.message).toContain('FEDERATION_KEY_PATH')
    expect(key.message).not.toContain('FEDERATION_CERT_PATH')
    expect(key.message).not.toContain('FEDERATION_CA_PATH')
  })

  test('paths come from the environment, as it is when connect() is called', async () => {
    const hub = new FederationHub(nowhere)
    await rejection(hub.connect())
    for (const name of PATHS) process.env[name] = `/nowhere/${name}.pem`
    expect((await rejection(hub.connect())).message).toMatch(/\/nowhere\/FEDERATION_\w+\.pem/)
    const given = new FederationHub({ ...nowhere, certPath: '/given.pem', keyPath: '/given.pem', caPath: '/given.pem' })
    expect((await rejection(given.connect())).message).toContain('/given.pem')
  })
})

describe('connected', () => {
  test('the clock starts at 0 and counts every sync, failed ones too', async () => {
    const hub = await connectAgent(await startHub(), 'agent')
    const connectedAt = hub.getSyncStats().lastSyncTime
    expect(hub.isConnected()).toBe(true)
    expect(hub.getSyncStats().vectorClock).toEqual({ agent: 0 })
    expect(connectedAt).toBeGreaterThan(0)

    const db = openDatabase(':memory:', NOTES)
    await hub.sync(db)
    expect(hub.getSyncStats().vectorClock).toEqual({ agent: 1 })
    expect(hub.getSyncStats().lastSyncTime).toBeGreaterThanOrEqual(connectedAt)

    const closed = openDatabase()
    const failing = hub.sync(closed)
    closed.close()
    expect(await rejection(failing)).toMatchObject({ code: 'ERR_FEDERATION_DATABASE' })
    expect(hub.getSyncStats().vectorClock).toEqual({ agent: 2 })
  })

  test('the statistics are a copy, and survive disconnect()', async () => {
    const hub = await connectAgent(await startHub(), 'agent')
    await hub.sync(openDatabase(':memory:', NOTES))
    const stats = hub.getSyncStats()
    stats.vectorClock['agent'] = 99
    expect(hub.getSyncStats().vectorClock).toEqual({ agent: 1 })
    await hub.disconnect()
    expect(hub.isConnected()).toBe(false)
    expect(hub.getSyncStats()).toEqual({ ...stats, vectorClock: { agent: 1 } })
    await expect(hub.sync(openDatabase())).rejects.toThrow('Not connected to federation hub')
  })

  test('connecting twice is connecting once', async () => {
    const server = await startHub()
    const hub = new FederationHub(server.agentConfig({ agentId: 'agent', tenantId: 'acme' }))
    await Promise.all([hub.connect(), hub.connect()])
    await hub.connect()
    expect(server.getStats().connectedAgents).toBe(1)
    await hub.disconnect()
    await hub.disconnect()
  })

  test('disconnect() waits for the sync that is running', async () => {
    const hub = await connectAgent(await startHub(), 'ada')
    const db = openDatabase(':memory:', 'CREATE TABLE notes (id TEXT PRIMARY KEY)')
    const insert = db.prepare('INSERT INTO notes VALUES (?)')
    for (let i = 0; i < 1000; i++) insert.run(`note ${i}`)
    const sync = hub.sync(db)
    await hub.disconnect()
    expect(hub.isConnected()).toBe(false)
    expect(await sync).toMatchObject({ pushed: 1000 })
  })

  test('a sync resolves to a report', async () => {
    const hub = await connectAgent(await startHub(), 'agent')
    const db = openDatabase(':memory:', `${NOTES}; INSERT INTO notes VALUES ('a', 'one'), ('b', 'two')`)
    const report = await hub.sync(db)
    expect(report).toMatchObject({ pulled: 0, pushed: 2, conflicts: 0, quarantined: 0, rejected: 0 })
    expect(report.bytesSent).toBeGreaterThan(0)
    expect(report.bytesReceived).toBeGreaterThan(0)
    expect(report.durationMs).toBeGreaterThan(0)
  })

  test('it can be subclassed and spied on', async () => {
    class Counting extends FederationHub {
      count = 0
      override async sync(...args: Parameters<FederationHub['sync']>): ReturnType<FederationHub['sync']> {
        this.count += 1
        return super.sync(...args)
      }
    }
    const server = await startHub()
    const hub = new Counting(server.agentConfig({ agentId: 'agent', tenantId: 'acme' }))
    await hub.connect()
    await hub.sync(openDatabase(':memory:', NOTES))
    expect(hub.count).toBe(1)
    const spy = jest.spyOn(hub, 'sync').mockRejectedValue(new Error('mocked'))
    await expect(hub.sync(openDatabase())).rejects.toThrow('mocked')
    expect(spy).toHaveBeenCalledTimes(1)
    await hub.disconnect()
  })

  test('what is no database is refused', async () => {
    const hub = await connectAgent(await startHub(), 'agent')
    for (const wrong of [undefined, null, 7, '', {}, { prepare() {}, exec() {} }]) {
      const error = await rejection(hub.sync(wrong as unknown as string))
      expect(error).toMatchObject({ code: 'ERR_FEDERATION_DATABASE' })
      expect(error.message).toContain('better-sqlite3')
    }
  })

  test('a hub that nobody runs is unreachable', async () => {
    const server = await startHub()
    const config = { ...server.agentConfig({ agentId: 'agent', tenantId: 'acme' }), connectTimeoutMs: 300 }
    await server.stop()
    const hub = new FederationHub(config)
    expect((await rejection(hub.connect())).code).toMatch(/^ERR_FEDERATION_(UNREACHABLE|TIMEOUT)$/)
    expect(hub.isConnected()).toBe(false)
  })

  test('a token that has expired is refused', async () => {
    const server = await startHub()
    const config = server.agentConfig({ agentId: 'agent', tenantId: 'acme', expiresInMs: -60_000 })
    expect(await rejection(new FederationHub(config).connect())).toMatchObject({
      code: 'ERR_FEDERATION_UNAUTHENTICATED',
    })
  })
})

describe('the logger', () => {
  test('receives what the old class logged, with its facts, and never the token', async () => {
    const lines: unknown[][] = []
    const log = (level: string) => (message: string, facts?: Record<string, unknown>) =>
      lines.push(facts === undefined ? [level, message] : [level, message, facts])
    const logger = { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') }
    const server = await startHub()
    const config = server.agentConfig({ agentId: 'agent', tenantId: 'acme' })
    const hub = new FederationHub({ ...config, logger })
    const db = openDatabase(':memory:', `${NOTES}; INSERT INTO notes VALUES ('a', 'one')`)
    await hub.connect()
    await hub.sync(db)
    await hub.disconnect()
    expect(lines).toEqual([
      ['info', 'Connecting to federation hub', { endpoint: config.endpoint, agentId: 'agent', mTLS: true }],
      ['info', 'Connected to federation hub', { agentId: 'agent' }],
      ['info', 'Pushed local changes', { agentId: 'agent', changeCount: 1 }],
      ['info', 'Sync completed', { agentId: 'agent', duration: expect.any(Number), pullCount: 0, pushCount: 1 }],
      ['info', 'Disconnecting from federation hub', { agentId: 'agent' }],
      ['info', 'Disconnected from federation hub'],
    ])
    expect(JSON.stringify(lines)).not.toContain(config.token)
  })

  test('receives failures', async () => {
    const error = jest.fn()
    const logger = { debug() {}, info() {}, warn() {}, error }
    const failing = await rejection(new FederationHub({ ...nowhere, logger }).connect())
    expect(error).toHaveBeenCalledWith('Failed to connect to federation hub', {
      endpoint: nowhere.endpoint,
      error: failing.message,
    })
    const hub = await connectAgent(await startHub(), 'agent', { logger })
    const failed = await rejection(hub.sync(7 as unknown as string))
    expect(error).toHaveBeenCalledWith('Sync failed', { agentId: 'agent', error: failed.message })
  })

  test('that is pino receives the facts too', async () => {
    const lines: Array<Record<string, unknown>> = []
    const pinos = pino({ base: { app: 'mine' } }, { write: (line: string) => lines.push(JSON.parse(line)) })
    const config = (await startHub()).agentConfig({ agentId: 'agent', tenantId: 'acme' })
    for (const [id, logger] of [pinos, pinos.child({ part: 'memory' })].entries()) {
      lines.length = 0
      const hub = new FederationHub({ ...config, logger })
      await hub.connect()
      await hub.sync(openDatabase(':memory:', `${NOTES}; INSERT INTO notes VALUES (${id}, 'one')`))
      await hub.disconnect()
      expect(lines.filter(({ msg }) => msg !== 'Pulled remote updates')).toEqual(
        [
          { msg: 'Connecting to federation hub', endpoint: config.endpoint, agentId: 'agent', mTLS: true },
          { msg: 'Connected to federation hub', agentId: 'agent' },
          { msg: 'Pushed local changes', agentId: 'agent', changeCount: 1 },
          { msg: 'Sync completed', agentId: 'agent', duration: expect.any(Number), pullCount: expect.any(Number) },
          { msg: 'Disconnecting from federation hub', agentId: 'agent' },
          { msg: 'Disconnected from federation hub', app: 'mine' },
        ].map((line) => expect.objectContaining(line)),
      )
    }
  })

  test('breaks nothing when it throws', async () => {
    const broken = new Proxy({} as FederationLogger, {
      get: () => () => {
        throw new Error('the disk is full')
      },
    })
    const hub = await connectAgent(await startHub(), 'agent', { logger: broken })
    await hub.sync(openDatabase(':memory:', `${NOTES}; INSERT INTO notes VALUES ('a', 'one')`))
    await hub.disconnect()
  })

  test('ends no process when its promises are rejected', () => {
    // In a process of its own: jest takes unhandled rejections for its own.
    const script = `
      const { FederationHub, FederationHubServer } = require(${JSON.stringify(path.join(__dirname, '..'))})
      const log = async () => { throw new Error('the collector is away') }
      const logger = { debug: log, info: log, warn: log, error: log }
      FederationHubServer.ephemeral().then(async (server) => {
        const config = server.agentConfig({ agentId: 'agent', tenantId: 'acme' })
        const hub = new FederationHub({ ...config, logger })
        await hub.connect()
        await hub.sync(7).catch(() => {})
        await hub.disconnect()
        await server.stop()
        await new Promise(setImmediate)
        console.log('alive')
      })`
    const { stdout, stderr, status } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' })
    expect({ stdout, stderr, status }).toEqual({ stdout: 'alive\n', stderr: '', status: 0 })
  })
})
