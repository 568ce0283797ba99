'use strict';

// libsql: better-sqlite3's methods, with differences that matter here. A single object among the arguments is
// taken for named parameters (a Buffer, too: the process ends), so that arguments go in an array. Statements go on
// working when the handle is closed, while its `inTransaction` then ends the process.

const { closed } = require('./errors.js');
const { Unfinished, begins } = require('./unfinished.js');

/** Leaving a loop over `iterate()` early does not end the statement: the garbage collector does, some day. */
const GRACE_MS = 1000;

function matches(database) {
  return (
    typeof database.open === 'boolean' &&
    // Of the class and not of the instance in better-sqlite3.
    Object.hasOwn(database, 'inTransaction') &&
    ['prepare', 'exec', 'pragma'].every((name) => typeof database[name] === 'function')
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
    if (!this.open) throw closed();
    if (begins(sql)) this.#unfinished.check();
    this.#database.exec(sql);
  }

  prepare(sql) {
    if (!this.open) throw closed();
    const statement = this.#database.prepare(sql);
    return typeof statement.all === 'function' ? new Statement(this, statement) : statement;
  }
}

class Statement {
  #surface;
  #statement;

  constructor(surface, statement) {
    this.#surface = surface;
    this.#statement = statement;
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
    if (!this.#surface.open) throw closed();
    return this.#statement.all(params);
  }

  run(...params) {
    if (!this.#surface.open) throw closed();
    return this.#statement.run(params);
  }
}

module.exports = { matches, surface: (database) => new Surface(database) };
