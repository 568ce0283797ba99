// Options that there are not: refused by name, at every level, with the one that was probably meant.

import { FederationHub, FederationHubServer, type FederationHubConfig, type FederationHubServerOptions } from '..'
import { rejection, startHub } from './support'

const listening = { listen: '127.0.0.1:0', dataPath: ':memory:' }

describe('a hub refuses', () => {
  test.each([
    // Each of these started a hub that was not what its operator had asked for.
    [{ clientCAPath: 'ca.crt' }, 'options.clientCAPath is no option; did you mean options.clientCaPath?'],
    [{ client_ca_path: 'ca.crt' }, 'did you mean options.clientCaPath?'],
    [{ clientCaPaht: undefined }, 'did you mean options.clientCaPath?'],
    [{ jwtIsuer: 'us' }, 'did you mean options.jwtIssuer?'],
    [{ maxAgents: 7 }, 'options.maxAgents is no option; did you mean options.limits.maxAgents?'],
    [{ limits: { maxagent: 7 } }, 'options.limits.maxagent is no option; did you mean options.limits.maxAgents?'],
    [{ colour: 'blue' }, 'options.colour is no option; there are: listen, dataPath, '],
    [{ ['x'.repeat(61)]: 1 }, 'xxx… is no option; there are: '],
  ])('%j', (wrong, message) => {
    const made = () => new FederationHubServer({ ...listening, ...wrong } as unknown as FederationHubServerOptions)
    expect(made).toThrow(expect.objectContaining({ name: 'FederationError', code: 'ERR_FEDERATION_CONFIG' }))
    expect(made).toThrow(message)
  })

  test('them in its credentials, in targets of revocation, and for whom a configuration is made', async () => {
    const server = await startHub()
    const credentials = { ...server.credentials, jwt_secret: 'x'.repeat(32) }
    const made = () => new FederationHubServer({ ...listening, credentials } as unknown as FederationHubServerOptions)
    expect(made).toThrow('options.credentials.jwt_secret is no option; did you mean options.credentials.jwtSecret?')
    // `{ tenantId, agent }` would have revoked the whole tenant.
    const target = { tenantId: 'acme', agent: 'ada' }
    for (const refused of [server.revoke(target), server.reinstate(target)]) {
      expect(await rejection(refused)).toMatchObject({
        code: 'ERR_FEDERATION_CONFIG',
        message: 'target.agent is no option; did you mean target.agentId?',
      })
    }
    expect(server.revocations()).toEqual([])
    const whom = { agentId: 'ada', tenantId: 'acme', permission: ['read'] }
    expect(() => server.agentConfig(whom)).toThrow('did you mean options.permissions?')
  })

  test('them where a hub is made by ephemeral()', async () => {
    const wrong = { agentTTL: 1 } as FederationHubServerOptions & { agentTTL: number }
    expect((await rejection(FederationHubServer.ephemeral(wrong))).message).toContain('did you mean options.agentTtl?')
  })
})

describe('an agent refuses', () => {
  test.each([
    // This one shared every table.
    [{ exclude: ['cache_*'] }, 'config.exclude is no option; did you mean config.tables.exclude?'],
    [{ merge: {} }, 'did you mean config.tables.<table>.merge?'],
    [{ enableMtls: false }, 'config.enableMtls is no option; did you mean config.enableMTLS?'],
    [{ agent_id: 'x' }, 'did you mean config.agentId?'],
    [{ timeout: 7 }, 'config.timeout is no option; there are: endpoint, agentId, '],
    [{ tables: { includes: ['notes'] } }, 'config.tables.includes is no list of tables; did you mean config.tables.include?'],
    [{ tables: { notes: ['a'] } }, 'config.tables.notes must be an object, not an array'],
    [{ tables: { notes: { Merge: {} } } }, 'did you mean config.tables.notes.merge?'],
    [{ references: [{ table: 'a', colum: 'b', to: 'c' }] }, 'did you mean config.references[0].column?'],
  ])('%j', async (wrong, message) => {
    const server = await startHub()
    const config = { ...server.agentConfig({ agentId: 'ada', tenantId: 'acme' }), ...wrong }
    const error = await rejection(new FederationHub(config as unknown as FederationHubConfig).connect())
    expect(error).toMatchObject({ name: 'FederationError', code: 'ERR_FEDERATION_CONFIG' })
    expect(error.message).toContain(message)
  })

  test('nothing that the class before took', async () => {
    const server = await startHub()
    const { certPem, keyPem, caPem, ...config } = server.agentConfig({ agentId: 'ada', tenantId: 'acme' })
    const paths = { enableMTLS: true, certPath: '/nowhere/a', keyPath: '/nowhere/b', caPath: '/nowhere/c' }
    expect((await rejection(new FederationHub({ ...config, ...paths }).connect())).message).toContain('/nowhere/')
    expect([certPem, keyPem, caPem]).not.toContain(undefined)
  })
})
