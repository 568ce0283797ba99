'use strict';

// sql.js's `Database`. It binds a BigInt as text and a whole double as an integer, so that such parameters are
// wrapped in a CAST, and each statement is prepared once for each combination of parameters that want one. It
// reads text only up to a NUL (before 1.14) or without a leading U+FEFF (since), so that text is read as bytes.
// `export()` (before 1.16) and `close()` end every statement; those of ours are then prepared again.

const { closed, sqliteError } = require('./errors.js');
const { Unfinished, begins } = require('./unfinished.js');

/** Statements are often left after their first row, `getAsObject()` being all that was wanted. */
const GRACE_MS = 1000;

/** How many statements are kept: one more, and the oldest goes. sql.js frees none by itself. */
const MAX_STATEMENTS = 512;

/** SQLite's codes, which sql.js does not give, by how its messages begin or end. */
const CODES = [
  [/ constraint failed(: |$)|^cannot store \w+ value in \w+ column /, 'SQLITE_CONSTRAINT'],
  [/^database (table )?(\S+ )?is locked|- SQL statements in progress$/, 'SQLITE_BUSY'],
];

/** String literals, quoted names and comments, in which a question mark means nothing; then a placeholder. */
const PLACEHOLDER = /'[^']*'|"[^"]*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|\/\*[^]*?\*\/|\?(\d*)/g;

// Unary plus takes away the affinity that a CAST has and a parameter has not: it would change comparisons.
const WRAPPED = {
  i: (parameter) => `(+CAST(${parameter} AS INTEGER))`,
  r: (parameter) => `(+CAST(${parameter} AS REAL))`,
};

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
      const marks = params.map(markOf);
      const exact = marks.every((mark) => mark === '.') ? sql : wrapped(sql, marks);
      const values = params.map(bindable);
      const statement = this.#statement(exact);
      try {
        statement.bind(values);
        return work(statement);
      } finally {
        statement.reset();
      }
    });
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
      const message = String(error?.message ?? error);
      const [, code] = CODES.find(([pattern]) => pattern.test(message)) ?? [];
      throw code === undefined ? error : sqliteError(code, message, error);
    }
  }
}

class Statement {
  #surface;
  #sql;

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
    return this.#surface.using(this.#sql, params, (statement) => {
      const rows = [];
      while (statement.step()) rows.push(exactRow(statement));
      return rows;
    });
  }

  run(...params) {
    return this.#surface.using(this.#sql, params, (statement) => {
      statement.step();
      return { changes: this.#surface.changes() };
    });
  }
}

/** Whether neither export() nor close() has ended a statement; binding nothing is what tells. */
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

function textOf(bytes) {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}

/** How a parameter has to be wrapped: not at all, as an integer, or as a double. */
function markOf(value) {
  if (typeof value === 'bigint') return isSmall(Number(value)) ? '.' : 'i';
  return typeof value === 'number' && isSmall(value) ? 'r' : '.';
}

/** A value that sql.js binds exactly, perhaps within the CAST that `markOf` asks for. */
function bindable(value) {
  if (typeof value === 'bigint' && isSmall(Number(value))) return Number(value);
  // Minus zero is equal to an integer, as which it would lose its sign.
  return typeof value === 'bigint' || Object.is(value, -0) ? textOfNumber(value) : value;
}

/** A number in SQL's notation. */
function textOfNumber(value) {
  return Object.is(value, -0) ? '-0.0' : String(value);
}

/** Whether sql.js binds this number as an integer. */
function isSmall(number) {
  return number === (number | 0);
}

/** The SQL with those of its parameters wrapped that want it. */
function wrapped(sql, marks) {
  let greatest = 0;
  return sql.replace(PLACEHOLDER, (text, number) => {
    if (number === undefined) return text;
    const place = number === '' ? greatest + 1 : Number(number);
    greatest = Math.max(greatest, place);
    const wrap = WRAPPED[marks[place - 1]];
    return wrap === undefined ? text : wrap(text);
  });
}

module.exports = { matches, surface: (database) => new Surface(database) };
