// What is said to people who have made an everyday mistake: what is wrong, and what to do.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'

import { FederationHub, FederationHubServer } from '..'
import { connectAgent, folder, openDatabase, rejection, startHub } from './support'

const NOTES = 'CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT)'

describe('an address to listen on', () => {
  test.each([
    [{ listen: '4433' }, 'a port without a host'],
    [{ listen: ':4433' }, 'the host is missing'],
    [{ listen: 'quic://0.0.0.0:4433' }, 'leave out what comes before the host'],
    [{ listen: '0.0.0.0:65536' }, 'no number from 0 to 65535'],
    [{ metricsListen: '9464' }, 'a port without a host'],
    [{ metricsListen: '127.0.0.1' }, 'the port is missing'],
  ])('%j', async (options, message) => {
    const error = await rejection(FederationHubServer.ephemeral(options))
    expect(error).toMatchObject({ code: 'ERR_FEDERATION_CONFIG' })
    expect(error.message).toContain(message)
    expect(error.message).toContain('host:port, as in ')
  })
})

describe('an endpoint', () => {
  test.each([
    ['quic://hub.example.com/federation', 'a hub has no paths'],
    ['quic://ada:hush@hub.example.com', 'the option token says who calls'],
    ['hub.example.com:4433', 'it does not begin with quic://'],
  ])('%s', async (endpoint, message) => {
    const server = await startHub()
    const config = { ...server.agentConfig({ agentId: 'ada', tenantId: 'acme' }), endpoint }
    const error = await rejection(new FederationHub(config).connect())
    expect(error).toMatchObject({ code: 'ERR_FEDERATION_CONFIG' })
    expect(error.message).toContain(message)
    expect(error.message).not.toContain('hush')
  })
})

test('a token that no hub reads is named before it is sent', async () => {
  const server = await startHub()
  for (const bytes of [9_000, 100_000]) {
    const config = { ...server.agentConfig({ agentId: 'ada', tenantId: 'acme' }), token: 'x'.repeat(bytes) }
    const error = await rejection(new FederationHub(config).connect())
    expect(error).toMatchObject({ code: 'ERR_FEDERATION_UNAUTHENTICATED' })
    expect(error.message).toContain(`the token has ${bytes} bytes, and a hub takes 8192 at most`)
  }
})

describe('certificates', () => {
  test('that Windows has put a mark before are read, on both sides, as texts and as files', async () => {
    const marked = (pem: string) => `\ufeff${pem.replaceAll('\n', '\r\n')}`
    const credentials = await FederationHubServer.generateCredentials()
    const [certPath, keyPath] = [path.join(folder(), 'hub.crt'), path.join(folder(), 'hub.key')]
    fs.writeFileSync(certPath, marked(credentials.hubCertPem))
    fs.writeFileSync(keyPath, Buffer.from(marked(credentials.hubKeyPem), 'utf16le'))
    const server = await startHub({ credentials, certPath, keyPath, clientCaPem: marked(credentials.caCertPem) })
    const config = server.agentConfig({ agentId: 'ada', tenantId: 'acme' })
    const [certPem, keyPem, caPem] = [config.certPem, config.keyPem, config.caPem].map((pem) => marked(String(pem)))
    await connectAgent(server, 'ada', { certPem, keyPem, caPem } as object)
  })

  test('of version 1 are named, on both sides', async () => {
    const directory = folder()
    const openssl = (...args: string[]) => {
      const { status, stderr } = spawnSync('openssl', args, { cwd: directory, encoding: 'utf8' })
      if (status !== 0) throw new Error(stderr)
    }
    const credentials = await FederationHubServer.generateCredentials()
    fs.writeFileSync(path.join(directory, 'ca.crt'), credentials.caCertPem)
    fs.writeFileSync(path.join(directory, 'ca.key'), credentials.caKeyPem)
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
    openssl('req', ...key, '-subj', '/CN=hub', '-keyout', 'one.key', '-out', 'one.csr')
    // Later releases of OpenSSL make version 3 unless they are told otherwise.
    const sign = ['x509', '-req', '-in', 'one.csr', '-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-out', 'one.crt']
    try {
      openssl(...sign, '-x509v1')
    } catch {
      openssl(...sign)
    }
    const [certPath, keyPath] = [path.join(directory, 'one.crt'), path.join(directory, 'one.key')]
    const message = `the certificate in the file ${certPath} is of X.509 version 1`
    const hub = await rejection(FederationHubServer.ephemeral({ credentials, certPath, keyPath }))
    expect(hub.message).toContain(message)
    expect(hub.message).toContain('-extfile')
    const { certPem, keyPem, ...config } = (await startHub({ credentials })).agentConfig({ agentId: 'ada', tenantId: 'acme' })
    const agent = await rejection(new FederationHub({ ...config, certPath, keyPath }).connect())
    expect(agent).toMatchObject({ code: 'ERR_FEDERATION_CONFIG', message: expect.stringContaining(message) })
    expect([certPem, keyPem]).not.toContain(undefined)
  })
})

describe('one of our tables that was dropped by hand', () => {
  test('is named with the remedy, and the remedy helps, whichever it is', async () => {
    const server = await startHub()
    // A table without a key has bookkeeping of its own.
    const schema = `${NOTES}; CREATE TABLE facts (a, b)`
    const names = async () => {
      const db = openDatabase(':memory:', schema)
      await (await connectAgent(server, 'names')).sync(db)
      return db.prepare(`SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '!_fed%' ESCAPE '!'`).pluck().all()
    }
    const all = (await names()) as string[]
    expect(all.length).toBeGreaterThan(5)
    for (const name of all) {
      const hub = await connectAgent(server, `dropped ${name}`)
      const db = openDatabase(':memory:', `${schema}; INSERT INTO notes VALUES ('${name}', 'x')`)
      await hub.sync(db)
      db.exec(`DROP TABLE ${name}`)
      try {
        db.exec(`INSERT INTO notes VALUES ('after ${name}', 'y'); INSERT INTO facts VALUES ('${name}', 1)`)
      } catch {
        // Where the log is missing, the application's own writes fail.
      }
      const error = await hub.sync(db).then(
        () => null,
        (reason: Error) => reason,
      )
      // Without the one that says that syncing is there, the rest is taken away and made anew.
      if (name !== '_federation_replica') {
        expect(error).toMatchObject({ code: 'ERR_FEDERATION_DATABASE' })
        expect(error?.message).toMatch(/by other hands \(no such table: .*FederationHub\.detach\(database\)/)
        await FederationHub.detach(db)
      }
      db.exec(`INSERT OR IGNORE INTO notes VALUES ('after ${name}', 'y')`)
      await hub.sync(db)
      const other = openDatabase()
      await (await connectAgent(server, `other ${name}`)).sync(other)
      const ids = other.prepare('SELECT id FROM notes').pluck().all()
      expect(ids).toEqual(expect.arrayContaining([name, `after ${name}`]))
    }
  })

  test('together with all others is a database that is synced for the first time, whatever is left of us', async () => {
    const server = await startHub()
    const hub = await connectAgent(server, 'ada')
    const db = openDatabase(':memory:', NOTES)
    await hub.sync(db)
    const ours = `FROM sqlite_master WHERE type = 'table' AND name LIKE '!_fed%' ESCAPE '!'`
    for (const name of db.prepare(`SELECT name ${ours}`).pluck().all()) db.exec(`DROP TABLE ${String(name)}`)
    await hub.sync(db)
    db.exec(`INSERT INTO notes VALUES ('after', 'y')`)
    expect(await hub.sync(db)).toMatchObject({ pushed: 1 })
  })
})
