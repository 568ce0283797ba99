// What the suites share: throwaway hubs, agents and databases that are closed after each test.

import Database from 'better-sqlite3'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'

import { FederationHub, FederationHubServer, type FederationHubConfig } from '..'

export type Handle = Database.Database

const cleanups: Array<() => unknown> = []

/** Runs after the test, latest first. */
export function cleanup(work: () => unknown): void {
  cleanups.push(work)
}

afterEach(async () => {
  for (const work of cleanups.splice(0).reverse()) await work()
})

/** A folder of the test's own. */
export function folder(): string {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), 'federation-hub-'))
  cleanup(() => fs.rmSync(made, { recursive: true, force: true }))
  return made
}

/** Where a test may have a database. */
export function temporaryFile(): string {
  return path.join(folder(), 'agent.db')
}

export async function startHub(
  options?: Parameters<typeof FederationHubServer.ephemeral>[0],
): Promise<FederationHubServer> {
  const server = await FederationHubServer.ephemeral(options)
  cleanup(() => server.stop())
  return server
}

/** A connected agent of the tenant `acme`. */
export async function connectAgent(
  server: FederationHubServer,
  agentId: string,
  extra: Partial<FederationHubConfig> = {},
): Promise<FederationHub> {
  const hub = new FederationHub({ ...server.agentConfig({ agentId, tenantId: 'acme' }), ...extra })
  await hub.connect()
  cleanup(() => hub.disconnect())
  return hub
}

export function openDatabase(path = ':memory:', schema = ''): Handle {
  const db = new Database(path)
  cleanup(() => db.close())
  db.exec(schema)
  return db
}

/** What a promise is rejected with; the test fails if it is not. */
export async function rejection(promise: Promise<unknown>): Promise<Error & { code?: string; retryAfterMs?: number }> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (!(error instanceof Error)) throw new Error(`expected a rejection with an Error, not ${String(error)}`)
  return error
}
