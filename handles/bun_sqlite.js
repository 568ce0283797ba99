'use strict';

// bun:sqlite's `Database`. It binds a whole double as an integer, so that doubles are wrapped in a CAST. Statements go
// on working when the handle is closed, and keep the file open, or `close(true)` from closing: each is finalized when
// the transaction has ended in which it was used, and prepared again when it is needed.

const { closed } = require('./errors.js');
const { wrapped } = require('./placeholders.js');
const { Unfinished, begins } = require('./unfinished.js');

/** For how many combinations of doubles and other parameters a statement's SQL is kept. */
const MAX_COMBINATIONS = 64;

function matches(database) {
  return (
    // A closed handle's `inTransaction` throws.
    'inTransaction' in database &&
    typeof database.handle === 'number' &&
    ['query', 'prepare', 'exec', 'serialize', 'close'].every((name) => typeof database[name] === 'function')
  );
}

class Surface {
  #database;
  #unfinished;
  /** Prepared statements by their SQL. */
  #live = new Map();

  constructor(database) {
    this.#database = database;
    // Leaving a loop over `iterate()` early ends the statement, so one that is unfinished is in use.
    this.#unfinished = new Unfinished((sql) => database.exec(sql));
  }

  get open() {
    try {
      return typeof this.#database.inTransaction === 'boolean';
    } catch {
      return false;
    }
  }

  exec(sql) {
    this.guarded(() => {
      if (begins(sql)) this.#unfinished.check();
      this.#database.exec(sql);
    });
  }

  prepare(sql) {
    const reader = this.guarded(() => this.statement(sql).columnNames.length > 0);
    return new Statement(this, sql, reader);
  }

  /** The prepared statement for this SQL. Only inside a call that is guarded. */
  statement(sql) {
    let statement = this.#live.get(sql);
    if (statement === undefined) {
      statement = this.#database.prepare(sql);
      if (typeof statement.safeIntegers !== 'function') {
        statement.finalize();
        throw new Error('bun:sqlite can be synced from the release on whose statements have safeIntegers(): update Bun');
      }
      statement.safeIntegers(true);
      this.#live.set(sql, statement);
    }
    return statement;
  }

  /** Runs a call of the handle, whose errors have SQLite's codes. */
  guarded(call) {
    if (!this.open) {
      this.#finalize();
      throw closed();
    }
    try {
      return call();
    } finally {
      if (!this.#database.inTransaction) this.#finalize();
    }
  }

  #finalize() {
    for (const statement of this.#live.values()) statement.finalize();
    this.#live.clear();
  }
}

class Statement {
  #surface;
  #sql;
  /** The SQL for each combination of parameters that want a CAST, by their marks. */
  #wrapped = new Map();

  constructor(surface, sql, reader) {
    this.#surface = surface;
    this.#sql = sql;
    this.reader = reader;
  }

  raw() {
    return this;
  }

  safeIntegers() {
    return this;
  }

  all(...params) {
    return this.#surface.guarded(() => this.#surface.statement(this.#exact(params)).values(...params) ?? []);
  }

  run(...params) {
    return this.#surface.guarded(() => {
      const { changes } = this.#surface.statement(this.#exact(params)).run(...params);
      return { changes: Number(changes) };
    });
  }

  /** The SQL to bind these parameters to. */
  #exact(params) {
    if (!params.some((value) => typeof value === 'number')) return this.#sql;
    const marks = params.map((value) => (typeof value === 'number' ? 'r' : '.')).join('');
    let sql = this.#wrapped.get(marks);
    if (sql === undefined) {
      if (this.#wrapped.size >= MAX_COMBINATIONS) this.#wrapped.clear();
      sql = wrapped(this.#sql, marks);
      this.#wrapped.set(marks, sql);
    }
    return sql;
  }
}

module.exports = { matches, surface: (database) => new Surface(database) };
