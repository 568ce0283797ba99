'use strict';

// node:sqlite's `DatabaseSync`, of Node.js and of Deno. Before Node.js 24, and in Deno, it reads text only up to a NUL,
// so that queries are wrapped there; and it binds an empty blob without an address as NULL, so that it gets one.
// Deno's `exec()` throws errors without SQLite's codes.

const { byMessage, byResultCode, closed } = require('./errors.js');
const { canBeWrapped, unwrap, withNuls } = require('./nuls.js');
const { Unfinished, begins } = require('./unfinished.js');

/** An empty blob whose bytes have an address, although there are none. */
const EMPTY = new Uint8Array(new ArrayBuffer(1), 0, 0);

/** Whether text is read only up to a NUL, by the handle's class: its code is the same for all handles. */
const cutting = new WeakMap();

function matches(database) {
  return (
    typeof database.isOpen === 'boolean' &&
    ['prepare', 'exec', 'open', 'close'].every((name) => typeof database[name] === 'function')
  );
}

class Surface {
  #database;
  #unfinished;

  constructor(database) {
    this.#database = database;
    // Leaving a loop over `iterate()` early ends the statement, so one that is unfinished is in use.
    this.#unfinished = new Unfinished((sql) => database.exec(sql));
  }

  get open() {
    return this.#database.isOpen;
  }

  exec(sql) {
    this.guarded(() => {
      if (begins(sql)) this.#unfinished.check();
      this.#database.exec(sql);
    });
  }

  prepare(sql) {
    const statement = (text) => this.guarded(() => exact(this.#database.prepare(text)));
    const first = statement(sql);
    const columns = first.columns().length;
    if (columns === 0 || !canBeWrapped(sql) || !this.#cutsText(statement)) {
      return new Statement(this, first, () => statement(sql), columns > 0, 0);
    }
    const again = () => statement(withNuls(sql, columns));
    return new Statement(this, again(), again, true, columns);
  }

  #cutsText(statement) {
    const { constructor } = this.#database;
    let cuts = cutting.get(constructor);
    if (cuts === undefined) {
      const [[text]] = this.guarded(() => statement("SELECT 'a' || char(0)").all());
      cuts = text.length === 1;
      cutting.set(constructor, cuts);
    }
    return cuts;
  }

  /** Runs a call of the handle; what it throws comes out as better-sqlite3 would throw it. */
  guarded(call) {
    if (!this.open) throw closed();
    try {
      return call();
    } catch (error) {
      throw error?.errcode === undefined ? byMessage(error) : byResultCode(error, error.errcode);
    }
  }
}

/** A statement that gives rows as arrays, and integers as what holds them all. */
function exact(statement) {
  if (typeof statement.setReturnArrays !== 'function') {
    throw new Error('node:sqlite can be synced from Node.js 22.16 on: pass the path of the database, and close it');
  }
  statement.setReturnArrays(true);
  statement.setReadBigInts(true);
  return statement;
}

class Statement {
  #surface;
  #statement;
  #again;
  #wrapped;

  /**
   * `again` prepares it once more; `wrapped` is how many columns the query had before it was wrapped, or 0 if it
   * is not.
   */
  constructor(surface, statement, again, reader, wrapped) {
    this.#surface = surface;
    this.#statement = statement;
    this.#again = again;
    this.#wrapped = wrapped;
    this.reader = reader;
  }

  raw() {
    return this;
  }

  safeIntegers() {
    return this;
  }

  all(...params) {
    const rows = this.#call('all', params);
    if (this.#wrapped > 0) for (const row of rows) unwrap(row, this.#wrapped);
    return rows;
  }

  run(...params) {
    const { changes } = this.#call('run', params);
    // A BigInt, because the statement reads integers as such.
    return { changes: Number(changes) };
  }

  #call(method, params) {
    const bound = params.map((value) => (ArrayBuffer.isView(value) && value.byteLength === 0 ? EMPTY : value));
    return this.#surface.guarded(() => {
      try {
        return this.#statement[method](...bound);
      } catch (error) {
        // The handle was closed and opened again, which ends every statement.
        if (error?.code !== 'ERR_INVALID_STATE') throw error;
        this.#statement = this.#again();
        return this.#statement[method](...bound);
      }
    });
  }
}

module.exports = { matches, surface: (database) => new Surface(database) };
