// The npm package agentdb, as it is. It has no CommonJS, and its `exports` hide createDatabase, so jest.config.js
// has its modules transformed and they are found by their files. What it depends on and no test reaches would
// download models or compile on installation: `overrides` in package.json puts a tiny package in its place.

import path from 'node:path'

/** What agentdb is tested by. */
export interface Agentdb {
  createDatabase(filename: string): Promise<unknown>
}

const dist = path.join(path.dirname(require.resolve('agentdb/controllers')), '..')

/** Its functions; it says on the console what it loads, which is kept off it. */
export async function loadAgentdb(): Promise<Agentdb> {
  const { createDatabase } = require(path.join(dist, 'db-fallback.js')) as Agentdb
  return {
    createDatabase: async (filename) => {
      const log = jest.spyOn(console, 'log').mockImplementation(() => undefined)
      try {
        return await createDatabase(filename)
      } finally {
        log.mockRestore()
      }
    },
  }
}
