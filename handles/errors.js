'use strict';

// Errors as native code knows them from better-sqlite3: it looks at `code`, and for some of them at the message. What it
// does not know it takes for a failure of the statement.

/** An error with one of SQLite's codes by name. */
function sqliteError(code, message, cause) {
  const error = new Error(message, { cause });
  error.code = code;
  return error;
}

/** SQLite's primary result codes that native code reacts to: all but those that only say that a statement failed. */
const PRIMARY = new Map([
  [2, 'SQLITE_INTERNAL'],
  [3, 'SQLITE_PERM'],
  [4, 'SQLITE_ABORT'],
  [5, 'SQLITE_BUSY'],
  [6, 'SQLITE_LOCKED'],
  [7, 'SQLITE_NOMEM'],
  [8, 'SQLITE_READONLY'],
  [9, 'SQLITE_INTERRUPT'],
  [10, 'SQLITE_IOERR'],
  [11, 'SQLITE_CORRUPT'],
  [13, 'SQLITE_FULL'],
  [14, 'SQLITE_CANTOPEN'],
  [15, 'SQLITE_PROTOCOL'],
  [17, 'SQLITE_SCHEMA'],
  [19, 'SQLITE_CONSTRAINT'],
  [20, 'SQLITE_MISMATCH'],
  [21, 'SQLITE_MISUSE'],
  [26, 'SQLITE_NOTADB'],
]);

/** An error with the code that better-sqlite3 would give it for SQLite's result code, if anything hangs on it. */
function byResultCode(error, resultCode) {
  const code = PRIMARY.get(resultCode & 0xff);
  return code === undefined ? error : sqliteError(code, error.message, error);
}

/** The same codes, for packages that do not give them, by how SQLite's messages begin or end. */
const MESSAGES = [
  [/ constraint failed(: |$)|^datatype mismatch$|^cannot store \w+ value in \w+ column /, 'SQLITE_CONSTRAINT'],
  [/^database (table )?(\S+ )?is locked|- SQL statements in progress$/, 'SQLITE_BUSY'],
];

/** An error with the code that better-sqlite3 would give it for this message, if anything hangs on it. */
function byMessage(error) {
  const message = String(error?.message ?? error);
  const [, code] = MESSAGES.find(([pattern]) => pattern.test(message)) ?? [];
  return code === undefined ? error : sqliteError(code, message, error);
}

/** What any use of a closed handle throws. */
function closed() {
  return new TypeError('The database connection is not open');
}

/** What beginning a transaction throws while a statement of the application is unfinished. */
function busyExecuting() {
  return new TypeError('This database connection is busy executing a query');
}

module.exports = { busyExecuting, byMessage, byResultCode, closed };
