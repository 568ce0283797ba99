'use strict';

// libsql: better-sqlite3's methods, with differences that matter here. A single object among the arguments is
// taken for named parameters (a Buffer, too: the process ends), so that arguments go in an array. Statements go on
// working when the handle is closed, while its `inTransaction` then ends the process. Text is read only up to a
// NUL, so that queries are wrapped. An EXPLAIN that has given its last row is in progress until it is reset, which reading a
// single row does: no COMMIT goes through before.

const { byResultCode, closed } = require('./errors.js');
const { canBeWrapped, unwrap, withNuls } = require('./nuls.js');
const { Unfinished, begins } = require('./unfinished.js');

/** Leaving a loop over `iterate()` early does not end the statement: the garbage collector does, some day. */
const GRACE_MS = 1000;

function matches(database) {
  return (
    typeof database.open === 'boolean' &&
    // Replication is what libsql has and better-sqlite3 has not.
    ['prepare', 'exec', 'pragma', 'syncUntil'].every((name) => typeof database[name] === 'function')
  );
}

class Surface {
  #database;
  #unfinished;

  constructor(database) {
    this.#database = database;
    this.#unfinished = new Unfinished((sql) => database.exec(sql), GRACE_MS);
  }

  get open() {
    return this.#database.open;
  }

  exec(sql) {
    this.guarded(() => {
      if (begins(sql)) this.#unfinished.check();
      this.#database.exec(sql);
    });
  }

  prepare(sql) {
    return this.guarded(() => {
      const statement = this.#database.prepare(sql);
      // An asynchronous handle's is a Promise.
      if (typeof statement.all !== 'function') return statement;
      if (!statement.reader || !canBeWrapped(sql)) {
        return new Statement(this, statement, 0, /^\s*EXPLAIN\b/i.test(sql));
      }
      const columns = statement.columns().length;
      return new Statement(this, this.#database.prepare(withNuls(sql, columns)), columns);
    });
  }

  /** Runs a call of the handle. What it throws gets the codes that libsql does not know by name. */
  guarded(call) {
    if (!this.open) throw closed();
    try {
      return call();
    } catch (error) {
      throw byResultCode(error, error?.rawCode);
    }
  }
}

class Statement {
  #surface;
  #statement;
  #columns;
  #isExplain;

  /** `columns` is how many columns the query had before it was wrapped, or 0 if it is not. */
  constructor(surface, statement, columns, isExplain = false) {
    this.#isExplain = isExplain;
    this.#surface = surface;
    this.#statement = statement;
    this.#columns = columns;
  }

  get reader() {
    return this.#statement.reader;
  }

  raw(on) {
    this.#statement.raw(on);
    return this;
  }

  safeIntegers(on) {
    this.#statement.safeIntegers(on);
    return this;
  }

  all(...params) {
    const rows = this.#surface.guarded(() => {
      const all = this.#statement.all(params);
      if (this.#isExplain) this.#statement.get(params);
      return all;
    });
    if (this.#columns > 0) for (const row of rows) unwrap(row, this.#columns);
    return rows;
  }

  run(...params) {
    return this.#surface.guarded(() => this.#statement.run(params));
  }
}

module.exports = { matches, surface: (database) => new Surface(database) };
