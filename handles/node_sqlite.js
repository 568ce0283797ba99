'use strict';

// node:sqlite's `DatabaseSync`, from Node.js 24 on: it binds and reads every value exactly.

const { byResultCode, closed } = require('./errors.js');
const { Unfinished, begins } = require('./unfinished.js');

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
    return new Statement(this, () => this.guarded(() => this.#database.prepare(sql)));
  }

  /** Runs a call of the handle; what it throws comes out as better-sqlite3 would throw it. */
  guarded(call) {
    if (!this.open) throw closed();
    try {
      return call();
    } catch (error) {
      throw byResultCode(error, error?.errcode);
    }
  }
}

class Statement {
  #surface;
  #prepare;
  #statement;

  constructor(surface, prepare) {
    this.#surface = surface;
    this.#prepare = prepare;
    this.#statement = this.#prepared();
  }

  #prepared() {
    const statement = this.#prepare();
    if (typeof statement.setReturnArrays !== 'function') {
      throw new Error('node:sqlite can be synced from Node.js 24 on: pass the path of the database, and close it');
    }
    this.reader = statement.columns().length > 0;
    if (this.reader) {
      statement.setReturnArrays(true);
      statement.setReadBigInts(true);
    }
    return statement;
  }

  raw() {
    return this;
  }

  safeIntegers() {
    return this;
  }

  all(...params) {
    return this.#call('all', params);
  }

  run(...params) {
    return this.#call('run', params);
  }

  #call(method, params) {
    return this.#surface.guarded(() => {
      try {
        return this.#statement[method](...params);
      } catch (error) {
        // The handle was closed and opened again, which ends every statement.
        if (error?.code !== 'ERR_INVALID_STATE') throw error;
        this.#statement = this.#prepared();
        return this.#statement[method](...params);
      }
    });
  }
}

module.exports = { matches, surface: (database) => new Surface(database) };
