// What an operator does and sees: backups, metrics, the log.

import { spawn } from 'node:child_process'
import path from 'node:path'

import { FederationHubServer } from '..'
import { connectAgent, folder, openDatabase, rejection, startHub } from './support'

const NOTES = 'CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT)'

describe('backup', () => {
  test('a hub that is started on one is the former as it was, and agents bring it up to date', async () => {
    const at = (name: string): string => path.join(directory, name)
    const directory = folder()
    const server = await startHub({ dataPath: at('hub.db') })
    const [agent, db] = [await connectAgent(server, 'agent'), openDatabase(':memory:', NOTES)]
    db.exec(`INSERT INTO notes VALUES ('before', 'x')`)
    await agent.sync(db)
    await server.backup(at('backup.db'))
    db.exec(`INSERT INTO notes VALUES ('after', 'y')`)
    await agent.sync(db)
    const listen = server.endpoint.replace('quic://', '')
    await server.stop()

    const credentials = server.credentials ? { credentials: server.credentials } : {}
    const restored = await startHub({ dataPath: at('backup.db'), listen, ...credentials })
    expect(restored.getStats().rows).toBe(1)
    await agent.sync(db)
    expect(restored.getStats().rows).toBe(2)
  })

  test('says why there is none', async () => {
    const target = path.join(folder(), 'backup.db')
    const inMemory = await startHub()
    expect(await rejection(inMemory.backup(target))).toMatchObject({ code: 'ERR_FEDERATION_CONFIG' })
    expect(await rejection(inMemory.backup(''))).toMatchObject({ code: 'ERR_FEDERATION_CONFIG' })
    const server = await startHub({ dataPath: path.join(folder(), 'hub.db') })
    const nowhere = path.join(target, 'missing', 'backup.db')
    expect(await rejection(server.backup(nowhere))).toMatchObject({ code: 'ERR_FEDERATION_BACKUP' })
    await server.stop()
    expect(await rejection(server.backup(target))).toMatchObject({ code: 'ERR_FEDERATION_NOT_RUNNING' })
  })
})

describe('metrics', () => {
  test('tell what the hub does, and whether it is ready', async () => {
    const server = await startHub({ metricsListen: '127.0.0.1:0' })
    const get = async (what: string): Promise<{ status: number; text: string }> => {
      const answer = await fetch(`${server.metricsEndpoint}${what}`)
      return { status: answer.status, text: await answer.text() }
    }
    const [agent, db] = [await connectAgent(server, 'agent'), openDatabase(':memory:', NOTES)]
    db.exec(`INSERT INTO notes VALUES ('a', 'x'), ('b', 'y')`)
    await agent.sync(db)
    const other = await connectAgent(server, 'other')
    await other.sync(openDatabase(':memory:', NOTES))
    const refused = { ...server.agentConfig({ agentId: 'x', tenantId: 'acme', expiresInMs: -1000 }) }
    await rejection(connectAgent(server, 'x', refused))

    const { status, text } = await get('/metrics')
    expect(status).toBe(200)
    for (const line of [
      'sessions 2',
      'tenants 1',
      'rows 2',
      'syncs_total 2',
      'tenant_syncs_total{tenant="acme"} 2',
      'tenant_received_rows_total{tenant="acme"} 2',
      'tenant_sent_rows_total{tenant="acme"} 2',
      'refusals_total{reason="unauthenticated"} 1',
      'conflicts_total 0',
      'store_queue 0',
    ]) {
      expect(text).toContain(`\nfederation_hub_${line}\n`)
    }
    expect(text).toMatch(/\nfederation_hub_commit_seconds_count [1-9]/)
    expect(text).toMatch(/\nfederation_hub_received_bytes_total [1-9]/)
    expect(await get('/healthz')).toEqual({ status: 200, text: 'ok\n' })
    expect(await get('/readyz')).toEqual({ status: 200, text: 'ok\n' })
    expect((await get('/')).status).toBe(404)
    const address = server.metricsEndpoint
    await server.stop()
    expect(server.metricsEndpoint).toBeNull()
    await expect(fetch(`${address}/healthz`)).rejects.toThrow()
  })

  test('are told by each hub of a process for itself, and by none that was not asked to', async () => {
    const [one, other] = [await startHub({ metricsListen: '127.0.0.1:0' }), await startHub({ metricsListen: '127.0.0.1:0' })]
    await connectAgent(one, 'agent')
    const sessions = async (server: FederationHubServer): Promise<string | undefined> =>
      /\nfederation_hub_sessions (\d+)/.exec(await (await fetch(`${server.metricsEndpoint}/metrics`)).text())?.[1]
    expect([await sessions(one), await sessions(other)]).toEqual(['1', '0'])
    expect((await startHub()).metricsEndpoint).toBeNull()
    const taken = String(one.metricsEndpoint).replace('http://', '')
    expect(await rejection(startHub({ metricsListen: taken }))).toMatchObject({ code: 'ERR_FEDERATION_HUB_START' })
  })
})

describe('the log', () => {
  async function run(log: string): Promise<{ lines: string[]; refused: string; secrets: string[] }> {
    const child = spawn(process.execPath, [path.join(__dirname, 'fixtures', 'life', 'logging.js'), log])
    const read = async (stream: AsyncIterable<unknown>): Promise<string> => {
      let text = ''
      for await (const chunk of stream) text += String(chunk)
      return text
    }
    const [out, err] = await Promise.all([read(child.stdout), read(child.stderr)])
    return { lines: err.split('\n').filter(Boolean), ...JSON.parse(out) }
  }

  test.each(['json', 'human'])('has the audit trail and no secret: %s', async (log) => {
    const { lines, refused, secrets } = await run(log)
    const all = lines.join('\n')
    for (const told of ['admitted', 'refused', 'ended', 'acme', 'the hub listens']) expect(all).toContain(told)
    expect(secrets).toHaveLength(7)
    for (const secret of secrets) {
      expect(secret.length).toBeGreaterThan(10)
      expect(all.includes(secret)).toBe(false)
    }
    expect(refused).toMatch(/^ERR_FEDERATION_CONFIG: .*log: '(json|human)', logLevel: 'debug'/)
    if (log === 'json') {
      const audit = lines.map((line) => JSON.parse(line)).filter((it) => it.target === 'audit')
      const agent = { tenant: 'acme', agent: 'agent', address: expect.stringMatching(/^127\.0\.0\.1:\d+$/) }
      const claimed = { claimed_tenant: 'acme', claimed_agent: 'agent' }
      const revoked = { tenant: 'acme', agent: 'other' }
      expect(audit).toEqual(
        [
          { event: 'admitted', ...agent, token_id: 'a "token"', may_write: true },
          { event: 'refused', ...claimed, reason: expect.stringMatching(/^[^"\\]*signature[^"\\]*$/) },
          { event: 'revoked', ...revoked },
          // Which of the two the hub sees first is left to the network.
          { event: 'ended', ...agent, token_id: 'a "token"', reason: expect.stringMatching(/^(goodbye|the hub stops)$/) },
        ].map((line) => expect.objectContaining(line)),
      )
      // An optional fact that is none is left out.
      expect(audit[2]).not.toHaveProperty('token_id')
      expect(lines.filter((line) => /Some\(|None|\\\\"/.test(line))).toEqual([])
    }
  })

  test('holds nobody up where nobody reads it', async () => {
    const child = spawn(process.execPath, [path.join(__dirname, 'fixtures', 'life', 'unread.js')])
    let out = ''
    for await (const chunk of child.stdout) out += String(chunk)
    child.stderr.destroy()
    expect(JSON.parse(out)).toEqual({ isServed: true, counts: true })
  }, 60_000)

  test('is off unless it is asked for, and knows its words', async () => {
    expect((await run('off')).lines).toEqual([])
    for (const options of [{ log: 'loud' as 'json' }, { log: 'json' as const, logLevel: 'all' as 'info' }]) {
      expect(await rejection(startHub(options))).toMatchObject({ code: 'ERR_FEDERATION_CONFIG' })
    }
  })
})
