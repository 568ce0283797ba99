'use strict';

// Statements of the application that have given some of their rows and not yet all.
//
// better-sqlite3 refuses everything else meanwhile. SQLite itself does not: rows that a sync writes then may or
// may not be seen by the reader, and a ROLLBACK ends it. So each transaction begins only when none is unfinished.

const { busyExecuting } = require('./errors.js');

/**
 * A statement without effect, which SQLite refuses in one of two ways: it says first whether there are unfinished
 * statements, and only then that NULL names no file.
 */
const PROBE_READERS = 'VACUUM INTO NULL';
const UNFINISHED = 'SQL statements in progress';

/** A statement without effect that SQLite refuses while a *writing* statement is unfinished. */
const PROBE_WRITERS = 'SAVEPOINT _federation_probe; RELEASE _federation_probe';

/** Keeps transactions from beginning in the middle of the application's statements. */
class Unfinished {
  #exec;
  #graceMs;
  /** Since when statements have been unfinished without a break, in milliseconds; null while there are none. */
  #since = null;

  /**
   * @param exec runs SQL and throws what SQLite says
   * @param graceMs how long to wait for a *reading* statement: where packages have no way to end a loop early,
   *   applications leave some unfinished for good, and a sync that waited for them would never come
   */
  constructor(exec, graceMs = Infinity) {
    this.#exec = exec;
    this.#graceMs = graceMs;
  }

  /** Throws what makes native code try again in a later turn, unless a transaction may begin now. */
  check() {
    if (!this.#refuses(PROBE_READERS)) {
      this.#since = null;
      return;
    }
    this.#since ??= Date.now();
    const isPatient = Date.now() - this.#since < this.#graceMs;
    // An unfinished write is the application's transaction as much as one that it has opened by BEGIN.
    if (isPatient || this.#refuses(PROBE_WRITERS)) throw busyExecuting();
  }

  #refuses(probe) {
    try {
      this.#exec(probe);
    } catch (error) {
      return String(error?.message).includes(UNFINISHED);
    }
    return false;
  }
}

/** Whether this SQL begins a transaction. */
function begins(sql) {
  return sql.startsWith('BEGIN');
}

module.exports = { Unfinished, begins };
