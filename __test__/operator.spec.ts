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

describe('tenants', () => {
  async function twoAgents(options: Parameters<typeof startHub>[0] = {}) {
    const server = await startHub(options)
    const [ada, adas] = [await connectAgent(server, 'ada'), openDatabase(':memory:', NOTES)]
    const [ben, bens] = [await connectAgent(server, 'ben'), openDatabase(':memory:')]
    adas.exec(`CREATE INDEX by_body ON notes(body); INSERT INTO notes VALUES ('a', 'x')`)
    const before = Date.now()
    await ada.sync(adas)
    await ben.sync(bens)
    return { server, ada, adas, ben, bens, before }
  }

  test('are listed and described', async () => {
    const { server, ada, adas, ben, bens, before } = await twoAgents()
    adas.exec(`INSERT INTO notes VALUES ('b', 'y')`)
    await ada.sync(adas)
    await ben.sync(bens)
    const [tenant] = await server.tenants()
    expect(tenant).toEqual({ tenantId: 'acme', rows: 2, bytes: expect.any(Number), agents: 2, replicas: 2 })
    const described = await server.describe('acme')
    expect(described).toMatchObject({ ...tenant, agents: expect.any(Array), agentCount: 2, deletedBytes: 0, droppedTables: [] })
    expect(described.agents.map((it) => it.agentId).sort()).toEqual(['ada', 'ben'])
    expect(Math.abs(described.latestWriteAt - before)).toBeLessThan(60_000)
    expect(described.agents[0]?.lastSeen).toBeGreaterThan(before - 60_000)
    const [notes] = described.tables
    expect(notes).toMatchObject({ name: 'notes', columns: ['id', 'body'], rows: 2, bytes: tenant?.bytes })
    expect(notes?.definitions).toEqual([
      { name: 'notes', kind: 'table', sql: NOTES, declaredBy: 'ada', replicas: 2, stands: true, isDropped: false },
      {
        ...{ name: 'by_body', kind: 'index', sql: 'CREATE INDEX by_body ON notes(body)', declaredBy: 'ada' },
        ...{ replicas: 2, stands: true, isDropped: false },
      },
    ])
  })

  test('lose a table, which stays with its agents, and get it back', async () => {
    const { server, ada, adas, ben, bens } = await twoAgents()
    const report = await server.dropTable('acme', 'notes')
    expect(report).toEqual({ rows: 1, bytes: expect.any(Number), referencedBy: [] })
    adas.exec(`INSERT INTO notes VALUES ('b', 'y')`)
    for (const [agent, db] of [[ada, adas], [ben, bens], [ada, adas], [ben, bens]] as const) {
      const { notices } = await agent.sync(db)
      expect(notices.join()).toMatch(/notes is not shared: the hub's operator has removed it/)
    }
    expect(server.getStats().rows).toBe(0)
    expect((await server.describe('acme')).droppedTables).toMatchObject([{ name: 'notes', isReadmitted: false }])
    await server.readmit('acme', 'notes')
    for (const [agent, db] of [[ada, adas], [ben, bens], [ada, adas], [ben, bens]] as const) await agent.sync(db)
    expect(bens.prepare('SELECT * FROM notes ORDER BY id').all()).toEqual(adas.prepare('SELECT * FROM notes ORDER BY id').all())
    expect(server.getStats().rows).toBe(2)
  })

  test('lose a definition', async () => {
    const { server, ben, bens } = await twoAgents()
    expect(await server.dropDefinition('acme', 'notes', 'by_body')).toEqual(['CREATE INDEX by_body ON notes(body)'])
    expect((await ben.sync(bens)).notices.join()).toMatch(/index by_body of table notes.*operator has removed it/)
    const late = openDatabase(':memory:')
    await (await connectAgent(server, 'late')).sync(late)
    expect(late.prepare(`SELECT name FROM sqlite_master WHERE name = 'by_body'`).all()).toEqual([])
    await server.readmit('acme', 'notes', 'by_body')
  })

  test('are erased once they are revoked, and the file gets smaller', async () => {
    const dataPath = path.join(folder(), 'hub.db')
    const { server, ada, adas, ben, bens } = await twoAgents({ dataPath })
    const [before] = await server.tenants()
    expect(await rejection(server.eraseTenant('acme'))).toMatchObject({
      code: 'ERR_FEDERATION_CONFIG',
      message: expect.stringMatching(/tenant "acme" is not revoked.*revoke\(\{ tenantId \}\)/),
    })
    await server.revoke({ tenantId: 'acme' })
    const report = await server.eraseTenant('acme')
    expect(report).toMatchObject({ rows: 1, bytes: before?.bytes, isLogEmptied: true })
    expect(await server.tenants()).toEqual([])
    expect(await server.compact()).toBe(0)
    expect(await rejection(ada.sync(adas))).toMatchObject({ code: 'ERR_FEDERATION_UNAUTHENTICATED' })
    await server.reinstate({ tenantId: 'acme' })
    await ada.connect()
    await ada.sync(adas)
    await ben.connect()
    await ben.sync(bens)
    expect((await server.tenants())[0]).toMatchObject({ tenantId: 'acme', rows: 1 })
  })

  test('that are not there are refused with what there is', async () => {
    const { server } = await twoAgents()
    for (const [refused, message] of [
      [server.describe('acmee'), /knows no tenant "acmee": did you mean "acme"\?/],
      [server.dropTable('acme', 'nodes'), /no table "nodes": did you mean "notes"\?/],
      [server.dropDefinition('acme', 'notes', 'by_bodi'), /no definition "by_bodi": did you mean "by_body"\?/],
      [server.readmit('acme', 'notes'), /no table "notes" was removed/],
      [server.eraseTenant('zzz'), /knows no tenant "zzz": there are "acme"/],
      [server.describe(undefined as never), /describe\(\): tenantId must be a non-empty string, not undefined/],
      [server.dropTable('acme', ''), /dropTable\(\): table must be a non-empty string/],
      [server.readmit('acme', 'notes', 7 as never), /readmit\(\): name must be a non-empty string, not of type number/],
    ] as const) {
      expect(await rejection(refused)).toMatchObject({ code: 'ERR_FEDERATION_CONFIG', message: expect.stringMatching(message) })
    }
    await server.stop()
    for (const refused of [server.tenants(), server.describe('acme'), server.compact(), server.eraseTenant('acme')]) {
      expect(await rejection(refused)).toMatchObject({ code: 'ERR_FEDERATION_NOT_RUNNING' })
    }
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
