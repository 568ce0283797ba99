'use strict';

// What is often passed and cannot be synced: what it is, and the expression that gives a handle, if there is one.

/** Through a pool, which hands its connections out asynchronously. */
const LENT = (client) =>
  `its pool lends the handle: \`const db = await ${client}.acquireConnection()\`, \`await hub.sync(db)\`, ` +
  `and \`await ${client}.releaseConnection(db)\` in a \`finally\`; with the client better-sqlite3`;

const OTHERS = [
  {
    name: 'a Kysely',
    matches: (value) => has(value, 'selectFrom', 'getExecutor'),
    remedy: 'it keeps its handle to itself: pass the `database` that you gave to its SqliteDialect',
  },
  {
    name: 'a Knex',
    matches: (value) => typeof value === 'function' && has(value, 'raw', 'queryBuilder') && isObject(value.client),
    remedy: LENT('knex.client'),
  },
  {
    // Of version 7, which has its handle where we look for it, only what is not connected comes here.
    name: 'a MikroORM',
    matches: (value) => isObject(value.em) && has(value.em, 'getConnection') && !hasNative(value.em),
    remedy: LENT('orm.em.getConnection().getKnex().client'),
  },
  {
    name: "a MikroORM's EntityManager",
    matches: (value) => has(value, 'getConnection', 'getDriver') && !hasNative(value),
    remedy: LENT('em.getConnection().getKnex().client'),
  },
  {
    name: 'a MikroORM that is not connected',
    matches: (value) => has(value, 'getNativeClient') && !isObject(value.database),
    remedy: 'pass what `await orm.em.getConnection().getNativeClient()` gives',
  },
  {
    name: 'a DataSource of TypeORM that is not initialized',
    matches: (value) => value.isInitialized === false && has(value, 'initialize', 'createQueryRunner'),
    remedy: 'call `await dataSource.initialize()` first, and pass `dataSource`',
  },
  {
    name: 'a Prisma client',
    matches: (value) => has(value, '$connect', '$disconnect'),
    remedy: 'it keeps its handle to itself: pass the path of the database, while Prisma is disconnected',
  },
  {
    name: 'a Sequelize',
    matches: (value) => has(value, 'getQueryInterface', 'authenticate'),
    remedy: 'its driver is asynchronous: pass the path of the database, while it is closed',
  },
  {
    name: 'a client of @libsql/client',
    matches: (value) => has(value, 'execute', 'batch', 'executeMultiple'),
    remedy:
      'it is asynchronous: pass a handle of the package libsql on the same file, or the path of the database, while ' +
      'it is closed',
  },
  {
    name: 'a database of node-sqlite3',
    matches: (value) => has(value, 'parallelize', 'each', 'prepare'),
    remedy: 'it is asynchronous: pass the path of the database, while it is closed, or use better-sqlite3',
  },
];

/** What this value is, of those; undefined if none. */
function other(value) {
  return OTHERS.find((candidate) => candidate.matches(value));
}

/** What to say of a handle whose methods return promises. */
function asynchronous(handle) {
  const isTurso = has(handle, 'transactionAsync', 'maxWriteReplicationIndex');
  if (isTurso) return 'a Database of @tursodatabase/database, which is asynchronous';
  const name = handle.constructor?.name;
  return `a ${name || 'database'} whose methods are asynchronous (as those of libsql/promise are)`;
}

/** Whether it is version 7 of MikroORM, whose connections can give the driver's own handle. */
function hasNative(em) {
  return has(em.getConnection(), 'getNativeClient');
}

function isObject(value) {
  return value !== null && typeof value === 'object';
}

function has(object, ...methods) {
  return methods.every((name) => typeof object?.[name] === 'function');
}

module.exports = { asynchronous, has, other };
