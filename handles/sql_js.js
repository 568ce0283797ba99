'use strict';

// sql.js's `Database`. It binds a BigInt as text and a whole double as an integer, so that integers and doubles are
// wrapped in a CAST, and each statement is prepared once for each combination of such parameters. It reads text only
// up to a NUL (1.13) or without a leading U+FEFF (1.16), so that text is read as bytes. `export()` (1.13) and
// `close()` end every statement; those of ours are then prepared again.

const { byMessage, closed } = require('./errors.js');
const { textOf } = require('./nuls.js');
const { wrapped } = require('./placeholders.js');
const { Unfinished, begins } = require('./unfinished.js');

/** Statements are often left after their first row, `getAsObject()` being all that was wanted. */
const GRACE_MS = 1000;

/** How many statements are kept: one more, and the oldest goes. sql.js frees none by itself. */
const MAX_STATEMENTS = 512;

/** For how many combinations of parameters a statement's SQL is kept. */
const MAX_COMBINATIONS = 64;

/** What the methods of a statement throw when `export()` or `close()` has ended it. */
const ENDED = 'Statement closed';

function matches(database) {
  return ['prepare', 'run', 'exec', 'export', 'getRowsModified'].every(
    (name) => typeof database[name] === 'function',
  );
}

class Surface {
  #database;
  #unfinished;
  /** Prepared statements by their SQL, oldest first. */
  #kept = new Map();

  constructor(database) {
    this.#database = database;
    this.#unfinished = new Unfinished((sql) => database.run(sql), GRACE_MS);
  }

  get open() {
    try {
      this.#database.run('');
      return true;
    } catch {
      return false;
    }
  }

  exec(sql) {
    this.guarded(() => {
      if (begins(sql)) this.#unfinished.check();
      this.#database.run(sql);
    });
  }

  prepare(sql) {
    const reader = this.guarded(() => this.#statement(sql).getColumnNames().length > 0);
    return new Statement(this, sql, reader);
  }

  /** How many rows the last statement changed. */
  changes() {
    return this.#database.getRowsModified();
  }

  /** Binds the parameters to the statement, calls `work` with it, and resets it. */
  using(sql, params, work) {
    return this.guarded(() => {
      const statement = this.#bound(sql, params.map(bindable));
      try {
        return work(statement);
      } finally {
        statement.reset();
      }
    });
  }

  #bound(sql, values) {
    const statement = this.#kept.get(sql) ?? this.#statement(sql);
    try {
      statement.bind(values);
      return statement;
    } catch (error) {
      if (error !== ENDED) throw error;
    }
    const anew = this.#statement(sql);
    anew.bind(values);
    return anew;
  }

  #statement(sql) {
    const kept = this.#kept.get(sql);
    if (kept !== undefined && isAlive(kept)) return kept;
    // Preparing on a closed database is undefined behaviour of SQLite's.
    if (!this.open) throw closed();
    const statement = this.#database.prepare(sql);
    this.#kept.delete(sql);
    if (this.#kept.size >= MAX_STATEMENTS) this.#dropOldest();
    this.#kept.set(sql, statement);
    return statement;
  }

  #dropOldest() {
    const [sql, statement] = this.#kept.entries().next().value;
    this.#kept.delete(sql);
    statement.free();
  }

  /** Runs a call of the handle; what it throws comes out as better-sqlite3 would throw it. */
  guarded(call) {
    try {
      return call();
    } catch (error) {
      if (error === 'Database closed') throw closed();
      throw byMessage(error);
    }
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
    return this.#surface.using(this.#exact(params), params, (statement) => {
      const rows = [];
      while (statement.step()) rows.push(exactRow(statement));
      return rows;
    });
  }

  run(...params) {
    return this.#surface.using(this.#exact(params), params, (statement) => {
      statement.step();
      return { changes: this.#surface.changes() };
    });
  }

  /** The SQL to bind these parameters to. */
  #exact(params) {
    let marks = '';
    for (const value of params) marks += markOf(value);
    let sql = this.#wrapped.get(marks);
    if (sql === undefined) {
      if (this.#wrapped.size >= MAX_COMBINATIONS) this.#wrapped.clear();
      sql = wrapped(this.#sql, marks);
      this.#wrapped.set(marks, sql);
    }
    return sql;
  }
}

/** Whether a statement has not been ended; binding nothing is what tells. */
function isAlive(statement) {
  try {
    return statement.bind(null);
  } catch {
    return false;
  }
}

/** The row that a statement stands on. */
function exactRow(statement) {
  const row = statement.get(null, { useBigInt: true });
  for (let column = 0; column < row.length; column++) {
    if (typeof row[column] === 'string') row[column] = textOf(statement.getBlob(column));
  }
  return row;
}

/** How a parameter is wrapped: as an integer, as a double, or not at all. By type alone: few combinations. */
function markOf(value) {
  if (typeof value === 'bigint') return 'i';
  return typeof value === 'number' ? 'r' : '.';
}

/** A value that sql.js binds exactly, given the CAST that `markOf` asks for. */
function bindable(value) {
  if (typeof value === 'bigint') {
    const number = Number(value);
    return number === (number | 0) ? number : String(value);
  }
  // Minus zero is equal to an integer, as which it would lose its sign.
  return Object.is(value, -0) ? '-0.0' : value;
}

module.exports = { matches, surface: (database) => new Surface(database) };
