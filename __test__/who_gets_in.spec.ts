// Tokens, certificates and revocation, as operators and agents meet them in JavaScript.

import fs from 'node:fs'
import path from 'node:path'

import { FederationHub, FederationHubServer, type FederationHubConfig } from '..'
import { cleanup, connectAgent, folder, openDatabase, rejection, startHub, type Handle } from './support'
import { Issuer, signedBySecret } from './tokens'

const SECRET = 'shared by the hub and whoever issues tokens'
const NOTES = 'CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT)'

/** The configuration of the agent `agent` of `acme`. */
function configOf(server: FederationHubServer, extra: Partial<FederationHubConfig> = {}): FederationHubConfig {
  return { ...server.agentConfig({ agentId: 'agent', tenantId: 'acme', token: 'unused' }), ...extra }
}

async function connect(config: FederationHubConfig): Promise<FederationHub> {
  const hub = new FederationHub(config)
  await hub.connect()
  cleanup(() => hub.disconnect())
  return hub
}

async function until(what: () => boolean): Promise<void> {
  while (!what()) await new Promise((resolve) => setTimeout(resolve, 20))
}

/** Waits until connecting so succeeds, or fails. */
async function untilConnecting(config: FederationHubConfig, expected: 'in' | 'out'): Promise<void> {
  for (;;) {
    const outcome = await connect(config).then(
      async (hub) => (await hub.disconnect(), 'in'),
      () => 'out',
    )
    if (outcome === expected) return
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

describe('tokens', () => {
  test.each(['RS256', 'EdDSA'] as const)('are verified with a public key: %s', async (algorithm) => {
    const issuer = new Issuer(algorithm)
    const server = await startHub({ jwtPublicKeyPem: issuer.pem })
    await connect(configOf(server, { token: issuer.token() }))
    const forged = signedBySecret(issuer.pem)
    expect(await rejection(connect(configOf(server, { token: forged })))).toMatchObject({
      code: 'ERR_FEDERATION_UNAUTHENTICATED',
      message: expect.stringContaining('algorithm'),
    })
    const issue = (): unknown => server.agentConfig({ agentId: 'agent', tenantId: 'acme' })
    expect(issue).toThrow('no secret to sign tokens with')
  })

  test('are verified with a key set, which is read again when it changes', async () => {
    const jwksPath = path.join(folder(), 'jwks.json')
    const [old, renewed] = [new Issuer('RS256', 'old'), new Issuer('EdDSA', 'new')]
    fs.writeFileSync(jwksPath, old.jwks)
    const server = await startHub({ jwksPath })
    const hub = await connect(configOf(server, { token: old.token() }))
    const byNew = configOf(server, { token: renewed.token() })
    expect((await rejection(connect(byNew))).message).toContain('kid')
    fs.writeFileSync(jwksPath, renewed.jwks)
    await untilConnecting(byNew, 'in')
    await untilConnecting(configOf(server, { token: old.token() }), 'out')
    await hub.sync(openDatabase(':memory:', NOTES))
  })

  test('are of the issuer and for the audience that the hub names', async () => {
    const server = await startHub({ jwtSecret: SECRET, jwtIssuer: 'us', jwtAudience: 'hub' })
    await connectAgent(server, 'agent')
    for (const claims of [{}, { iss: 'us' }, { aud: 'hub' }, { iss: 'them', aud: 'hub' }, { iss: 'us', aud: ['mail'] }]) {
      const token = signedBySecret(SECRET, claims)
      expect((await rejection(connect(configOf(server, { token })))).code).toBe('ERR_FEDERATION_UNAUTHENTICATED')
    }
    await connect(configOf(server, { token: signedBySecret(SECRET, { iss: 'us', aud: ['mail', 'hub'] }) }))
  })

  test('may expire by as much as the clocks may differ', async () => {
    const expired = { exp: Date.now() - 5_000 }
    const server = await startHub({ jwtSecret: SECRET, jwtLeewayMs: 60_000 })
    await connect(configOf(server, { token: signedBySecret(SECRET, expired) }))
    const exact = await startHub({ jwtSecret: SECRET })
    expect((await rejection(connect(configOf(exact, { token: signedBySecret(SECRET, expired) })))).message).toContain(
      'expired',
    )
  })

  test('that permit reading only let nothing be written', async () => {
    const server = await startHub()
    const writer = await connectAgent(server, 'writer')
    const theirs = openDatabase(':memory:', `${NOTES}; INSERT INTO notes VALUES ('a', 'shared')`)
    await writer.sync(theirs)
    const permissions = ['read'] as const
    const reader = await connect(server.agentConfig({ agentId: 'reader', tenantId: 'acme', permissions }))
    const mine = openDatabase()
    expect(await reader.sync(mine)).toMatchObject({ pulled: 1 })
    mine.exec("INSERT INTO notes VALUES ('b', 'mine')")
    theirs.exec("INSERT INTO notes VALUES ('c', 'later')")
    await writer.sync(theirs)
    expect(await rejection(reader.sync(mine))).toMatchObject({ code: 'ERR_FEDERATION_FORBIDDEN' })
    expect(mine.prepare('SELECT id FROM notes ORDER BY id').pluck().all()).toEqual(['a', 'b', 'c'])
    expect(await writer.sync(theirs)).toMatchObject({ pulled: 0 })
  })

  test.each([
    [{ jwtSecret: SECRET, jwksPath: '/nowhere' }, 'one of jwtSecret'],
    [{ jwksPath: '/nowhere/jwks.json' }, '/nowhere/jwks.json'],
    [{ jwtPublicKeyPem: 'no key' }, 'BEGIN PUBLIC KEY'],
    [{ jwtSecret: SECRET, jwtAlgorithm: 'RS256' as const }, 'jwtAlgorithm'],
    [{ jwtSecret: SECRET, jwtAlgorithm: 'none' as 'HS256' }, 'jwtAlgorithm'],
    [{ jwtSecret: SECRET, jwtLeewayMs: -1 }, 'jwtLeewayMs'],
    [{ jwtSecret: SECRET.slice(0, 31) }, 'has 31 bytes, and needs 32'],
  ])('a hub refuses %j', async (options, message) => {
    const error = await rejection(FederationHubServer.ephemeral(options))
    expect(error.code).toBe('ERR_FEDERATION_CONFIG')
    expect(error.message).toContain(message)
  })
})

describe('a function that gives tokens', () => {
  test('is called for each connection, and a sync notices nothing of a token that expires', async () => {
    const server = await startHub({ jwtSecret: SECRET })
    let given = 0
    const token = async (): Promise<string> => {
      given += 1
      await new Promise(setImmediate)
      return signedBySecret(SECRET, { exp: Date.now() + 1_500 })
    }
    const hub = await connect(configOf(server, { token }))
    const db = openDatabase(':memory:', NOTES)
    await hub.sync(db)
    expect(given).toBe(1)
    await until(() => server.getStats().connectedAgents === 0)
    expect(hub.isConnected()).toBe(true)
    db.exec("INSERT INTO notes VALUES ('a', 'after its end')")
    expect(await hub.sync(db)).toMatchObject({ pushed: 1 })
    expect(given).toBe(2)
    await Promise.all([hub.sync(db), hub.sync(db)])
    expect(given).toBe(2)
  })

  test('works for a path, too', async () => {
    const server = await startHub({ jwtSecret: SECRET })
    const file = path.join(folder(), 'memory.db')
    openDatabase(file, NOTES).close()
    const hub = await connect(configOf(server, { token: () => signedBySecret(SECRET, { exp: Date.now() + 1_000 }) }))
    await hub.sync(file)
    await until(() => server.getStats().connectedAgents === 0)
    await hub.sync(file)
  })

  test('and a fixed token are told apart by what happens at its end', async () => {
    const server = await startHub({ jwtSecret: SECRET })
    const hub = await connect(configOf(server, { token: signedBySecret(SECRET, { exp: Date.now() + 1_000 }) }))
    const db: Handle = openDatabase(':memory:', NOTES)
    await hub.sync(db)
    await until(() => server.getStats().connectedAgents === 0)
    expect(await rejection(hub.sync(db))).toMatchObject({
      code: 'ERR_FEDERATION_UNAUTHENTICATED',
      message: expect.stringContaining('expired'),
    })
  })

  test.each([
    ['throws', () => Promise.reject(new Error('the vault is sealed')), 'the vault is sealed'],
    ['throws at once', () => { throw new Error('the vault is sealed') }, 'the vault is sealed'],
    ['throws no error', () => Promise.reject(Symbol('s') as unknown as Error), 'no error'],
    ['gives nothing', () => undefined as unknown as string, 'undefined'],
    ['gives an empty token', () => '', 'an empty string'],
    ['gives an object', () => ({}) as unknown as string, 'of type object'],
    ['never answers', () => new Promise<string>(() => {}), 'connectTimeoutMs'],
  ])('that %s is named as the reason', async (_, token, message) => {
    const server = await startHub()
    const error = await rejection(connect(configOf(server, { token, connectTimeoutMs: 500 })))
    expect(error.message).toContain(message)
    expect(error.code).toMatch(/^ERR_FEDERATION_(UNAUTHENTICATED|TIMEOUT)$/)
  })

  test('is never shown, nor what it gives', async () => {
    const lines: unknown[] = []
    const log = (...line: unknown[]) => lines.push(line)
    const server = await startHub()
    const given = server.agentConfig({ agentId: 'agent', tenantId: 'acme' }).token
    const logger = { debug: log, info: log, warn: log, error: log }
    const hub = await connect(configOf(server, { token: () => given, logger }))
    await hub.sync(openDatabase(':memory:', NOTES))
    expect(JSON.stringify(lines)).not.toContain(given)
  })
})

describe('certificates', () => {
  test('have to be of the token’s tenant and agent', async () => {
    const server = await startHub({ requireCertificateIdentity: true })
    const own = server.agentConfig({ agentId: 'agent', tenantId: 'acme' })
    await connect(own)
    for (const who of [
      { agentId: 'agent', tenantId: 'globex' },
      { agentId: 'other', tenantId: 'acme' },
    ]) {
      const { agentId, tenantId, token } = own
      expect(await rejection(connect({ ...server.agentConfig(who), agentId, tenantId, token }))).toMatchObject({
        code: 'ERR_FEDERATION_UNAUTHENTICATED',
        message: expect.stringContaining('the certificate is of another'),
      })
    }
    const stranger = await startHub({ trustDomain: 'acme.example' })
    expect((await rejection(connectAgent(stranger, 'agent'))).message).toContain('trust domain')
  })

  test('cannot be required where none is asked for', async () => {
    const { hubCertPem, hubKeyPem } = await FederationHubServer.generateCredentials()
    const server = new FederationHubServer({
      listen: '127.0.0.1:0',
      dataPath: ':memory:',
      certPem: hubCertPem,
      keyPem: hubKeyPem,
      jwtSecret: SECRET,
      requireCertificateIdentity: true,
    })
    expect(await rejection(server.start())).toMatchObject({
      code: 'ERR_FEDERATION_CONFIG',
      message: expect.stringContaining('clientCaPath'),
    })
  })

  test('are loaded anew when their files change, and nobody is cut off', async () => {
    const files = folder()
    const [old, renewed] = [
      await FederationHubServer.generateCredentials(),
      await FederationHubServer.generateCredentials(),
    ]
    const [certPath, keyPath] = [path.join(files, 'hub.crt'), path.join(files, 'hub.key')]
    const install = ({ hubCertPem, hubKeyPem }: typeof old): void => {
      fs.writeFileSync(certPath, hubCertPem)
      fs.writeFileSync(keyPath, hubKeyPem)
    }
    install(old)
    const server = await startHub({ certPath, keyPath, credentials: old })
    const hub = await connectAgent(server, 'agent')
    install(renewed)
    const trusting = server.agentConfig({ agentId: 'agent', tenantId: 'acme' })
    await untilConnecting({ ...trusting, caPem: renewed.caCertPem }, 'in')
    await untilConnecting(trusting, 'out')
    await hub.sync(openDatabase(':memory:', NOTES))
    expect(server.getStats().connectedAgents).toBe(1)
  })
})

describe('revocation', () => {
  test('ends sessions, survives a restart, and can be taken back', async () => {
    const dataPath = path.join(folder(), 'hub.db')
    const server = await startHub({ dataPath, listen: '127.0.0.1:0' })
    const ada = await connectAgent(server, 'ada')
    const ben = await connectAgent(server, 'ben')
    const [adas, bens] = [openDatabase(':memory:', NOTES), openDatabase()]
    await ada.sync(adas)
    await ben.sync(bens)
    await server.revoke({ tenantId: 'acme', agentId: 'ada' })
    await until(() => server.getStats().connectedAgents === 1)
    expect(await rejection(ada.sync(adas))).toMatchObject({
      code: 'ERR_FEDERATION_UNAUTHENTICATED',
      message: expect.stringContaining('revoked'),
    })
    await ben.sync(bens)
    expect(server.revocations()).toEqual([{ tenantId: 'acme', agentId: 'ada', revokedAt: expect.any(Number) }])

    const { credentials } = server
    if (!credentials) throw new Error('an ephemeral hub has credentials')
    await server.stop()
    expect(server.revocations()).toEqual([])
    expect(await rejection(server.revoke({ tenantId: 'acme' }))).toMatchObject({ code: 'ERR_FEDERATION_NOT_RUNNING' })
    const again = await startHub({ dataPath, credentials })
    expect((await rejection(connectAgent(again, 'ada'))).message).toContain('revoked')
    expect(await again.reinstate({ tenantId: 'acme', agentId: 'ada' })).toBe(true)
    expect(await again.reinstate({ tenantId: 'acme', agentId: 'ada' })).toBe(false)
    await connectAgent(again, 'ada')
  })

  test('of a token leaves its agent’s other tokens alone, and ends', async () => {
    const server = await startHub()
    const issue = (tokenId: string): FederationHubConfig =>
      server.agentConfig({ agentId: 'agent', tenantId: 'acme', tokenId })
    const [stolen, other] = [issue('stolen'), issue('other')]
    const expiresAt = Date.now() + 3_600_000
    await server.revoke({ tokenId: 'stolen', expiresAt })
    expect(server.revocations()).toEqual([{ tokenId: 'stolen', revokedAt: expect.any(Number), expiresAt }])
    expect((await rejection(connect(stolen))).code).toBe('ERR_FEDERATION_UNAUTHENTICATED')
    await connect(other)
    await server.revoke({ tokenId: 'stolen', expiresAt: Date.now() + 500 })
    while (server.revocations().length > 0) await new Promise((resolve) => setTimeout(resolve, 50))
    await connect(stolen)
  })

  test('may be said to end in seconds, and in nothing that revokes nobody', async () => {
    const server = await startHub()
    const expiresAt = Math.floor(Date.now() / 1000) + 3_600
    await server.revoke({ tokenId: 'stolen', expiresAt })
    expect(server.revocations()).toMatchObject([{ expiresAt: expiresAt * 1000 }])
    for (const wrong of [Date.now() - 1, 1, 0, -1, NaN, Infinity, Date.now() * 1000]) {
      expect(await rejection(server.revoke({ tokenId: 'other', expiresAt: wrong }))).toMatchObject({
        code: 'ERR_FEDERATION_CONFIG',
        message: expect.stringContaining('target.expiresAt must be a time to come'),
      })
    }
    // Whoever takes one back need not know that its time is over.
    expect(await server.reinstate({ tokenId: 'stolen', expiresAt: 1 })).toBe(true)
  })

  test('and tokens and hubs are not wider because something is null', async () => {
    const server = await startHub()
    const target = { tenantId: 'acme', agentId: null as unknown as string }
    for (const refused of [server.revoke(target), server.reinstate(target)]) {
      expect(await rejection(refused)).toMatchObject({
        code: 'ERR_FEDERATION_CONFIG',
        message: 'target.agentId must not be null: leave it out if you mean all',
      })
    }
    expect(server.revocations()).toEqual([])
    const whom = { agentId: 'ada', tenantId: 'acme', permissions: null as unknown as [] }
    expect(() => server.agentConfig(whom)).toThrow('options.permissions must not be null')
    const options = { listen: '127.0.0.1:0', dataPath: ':memory:', clientCaPath: null as unknown as string }
    expect(() => new FederationHubServer(options)).toThrow('options.clientCaPath must not be null')
  })

  test.each([{}, { agentId: 'a' }, { tenantId: 't', tokenId: 'x' }, { agentId: 'a', tokenId: 'x' }])(
    'of nobody in particular is refused: %j',
    async (target) => {
      const server = await startHub()
      for (const refused of [server.revoke(target), server.reinstate(target)]) {
        expect(await rejection(refused)).toMatchObject({ code: 'ERR_FEDERATION_CONFIG' })
      }
    },
  )
})
