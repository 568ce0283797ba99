'use strict';

// What `sync()` and `detach()` take: a path, or a handle of any of several SQLite packages, or an object that holds one.
//
// Native code knows one surface, that of better-sqlite3: `exec`, and `prepare`, which gives statements with
// `reader`, `raw`, `safeIntegers`, `all` and `run`. The other packages' handles get an adapter of that shape;
// a better-sqlite3 handle goes to native code as it is.

const bunSqlite = require('./bun_sqlite.js');
const libsql = require('./libsql.js');
const nodeSqlite = require('./node_sqlite.js');
const { asynchronous, has, other } = require('./others.js');
const { probe } = require('./probe.js');
const sqlJs = require('./sql_js.js');

const betterSqlite3 = {
  matches: (database) =>
    typeof database.open === 'boolean' &&
    'inTransaction' in database &&
    has(database, 'prepare', 'exec', 'pragma'),
  surface: (database) => database,
};

// libsql's handles look like better-sqlite3's, so it is asked first.
const KINDS = [libsql, betterSqlite3, nodeSqlite, bunSqlite, sqlJs];

/** Where objects that hold a handle have it: wrappers, Drizzle, TypeORM, MikroORM. */
const HELD_BY = [
  'db',
  'database',
  'raw',
  '$client',
  'client',
  'driver',
  'databaseConnection',
  'connection',
  'dataSource',
  'session',
];
/** How deep such objects may be nested. */
const DEEPEST = 4;

/**
 * For each handle that was ever synced, what native code is given: the surface, and the array in which it keeps
 * its prepared statements. The key is the handle itself and not what holds it, so that both are one database.
 */
const known = new WeakMap();

/** What native code is given for a database. Throws if the value is none, or none that can be synced. */
function handleOf(database) {
  if (typeof database === 'string' && database !== '') return { surface: database, statements: [] };
  const found = innermost(database, DEEPEST, new Set());
  if (found === null) throw refusal(described(database));
  if (found.kind === undefined) throw refusal(`${found.other.name}: ${found.other.remedy}`);
  let handle = known.get(found.handle);
  if (handle === undefined) {
    const surface = found.kind.surface(found.handle);
    requireOpen(surface);
    handle = { surface: checked(surface, found.handle), statements: [] };
    known.set(found.handle, handle);
  } else {
    requireOpen(handle.surface);
  }
  return handle;
}

/**
 * The handle itself, or the one that an object holds, perhaps through another object; or what is known not to have
 * one, if that is all there is; null if there is nothing.
 */
function innermost(value, depth, seen) {
  if (typeof value === 'function') {
    const found = other(value);
    return found === undefined ? null : { other: found };
  }
  if (value === null || typeof value !== 'object' || depth === 0 || seen.has(value)) return null;
  seen.add(value);
  const kind = KINDS.find((candidate) => candidate.matches(value));
  if (kind !== undefined) return { kind, handle: value };
  const known = other(value);
  if (known !== undefined) return { other: known };
  let instead = null;
  for (const name of HELD_BY) {
    const found = innermost(value[name], depth - 1, seen);
    if (found?.kind !== undefined) return found;
    instead ??= found;
  }
  return instead;
}

/** The surface, once it is seen to give back every value as it is, at once. */
function checked(surface, handle) {
  let found;
  try {
    found = probe(surface);
  } catch {
    // Busy, for example: what it does to values is to be known before the first transaction begins.
    return new Unchecked(surface, handle);
  }
  if (found === null) return surface;
  if (found.isAsynchronous) {
    throw refusal(
      `${asynchronous(handle)}: other code could run between two statements of a transaction. Pass the path of the ` +
        'database, while it is closed, or open it with a synchronous package',
    );
  }
  const name = handle.constructor?.name;
  throw refusal(
    `a ${name || 'handle'} that changes values: ${found.changed.join(', ')}. Use a newer release of its package, or ` +
      'pass the path of the database, while it is closed',
  );
}

/** A surface that nothing is asked of before it is checked. */
class Unchecked {
  #surface;
  #handle;

  constructor(surface, handle) {
    this.#surface = surface;
    this.#handle = handle;
  }

  get open() {
    return this.#surface.open;
  }

  exec(sql) {
    return this.#checked().exec(sql);
  }

  prepare(sql) {
    return this.#checked().prepare(sql);
  }

  #checked() {
    if (this.#handle !== null) {
      // What the handle throws says what native code has to know: that it is busy, or closed.
      probe(this.#surface);
      this.#surface = checked(this.#surface, this.#handle);
      this.#handle = null;
    }
    return this.#surface;
  }
}

function requireOpen(surface) {
  if (surface.open !== false) return;
  throw coded('the database is closed: open it again, and pass the handle that is open');
}

function refusal(described) {
  return coded(
    'an open handle of better-sqlite3, node:sqlite, bun:sqlite, sql.js or libsql is wanted, an object that holds one ' +
      `(as .db, .database, .$client or the like), or the path of a database, not ${described}`,
  );
}

function coded(message) {
  const error = new TypeError(message);
  error.code = 'ERR_FEDERATION_DATABASE';
  return error;
}

// Never the value itself: nobody knows what is in it.
function described(value) {
  if (value === null || value === undefined) return String(value);
  if (value === '') return 'an empty string';
  if (typeof value !== 'object') return `a value of type ${typeof value}`;
  if (typeof value.then === 'function') return 'a Promise: await it first';
  const name = value.constructor?.name;
  const what = typeof name === 'string' && name !== '' && name !== 'Object' ? `a ${name}` : 'an object';
  const driver = has(value, 'exec') || has(value, 'execute') || has(value, 'prepare');
  return driver ? `${what} of another package or of an asynchronous driver` : `${what} that holds none`;
}

module.exports = { handleOf };
