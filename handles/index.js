'use strict';

// What `sync()` and `detach()` take: a path, or a handle of any of several SQLite packages, or an object that holds one.
//
// Native code knows one surface, that of better-sqlite3: `exec`, and `prepare`, which gives statements with
// `reader`, `raw`, `safeIntegers`, `all` and `run`. The other packages' handles get an adapter of that shape;
// a better-sqlite3 handle goes to native code as it is.

const bunSqlite = require('./bun_sqlite.js');
const libsql = require('./libsql.js');
const nodeSqlite = require('./node_sqlite.js');
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

/** Where objects that hold a handle have it. */
const HELD_BY = ['db', 'database', 'raw'];
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
  const found = innermost(database, DEEPEST);
  if (found === null) throw refusal(database);
  let handle = known.get(found.handle);
  if (handle === undefined) {
    handle = { surface: found.kind.surface(found.handle), statements: [] };
    requireSynchronous(handle.surface, database);
    known.set(found.handle, handle);
  }
  return handle;
}

/** The handle itself, or the one that an object holds, perhaps through another object; null if there is none. */
function innermost(value, depth) {
  if (value === null || typeof value !== 'object' || depth === 0) return null;
  const kind = KINDS.find((candidate) => candidate.matches(value));
  if (kind !== undefined) return { kind, handle: value };
  for (const name of HELD_BY) {
    const found = innermost(value[name], depth - 1);
    if (found !== null) return found;
  }
  return null;
}

/** Some packages have a second, asynchronous class with the very same methods. */
function requireSynchronous(surface, database) {
  let statement;
  try {
    statement = surface.prepare('SELECT 1');
  } catch {
    // The handle is closed, or busy: that is for the sync to find out.
    return;
  }
  if (typeof statement?.all !== 'function') throw refusal(database);
}

function has(object, ...methods) {
  return methods.every((name) => typeof object[name] === 'function');
}

function refusal(value) {
  const error = new TypeError(
    'an open handle of better-sqlite3, node:sqlite, bun:sqlite, sql.js or libsql is wanted, an object that holds one as ' +
      `.db, .database or .raw, or the path of a database, not ${described(value)}`,
  );
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
