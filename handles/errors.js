'use strict';

// Errors as native code knows them from better-sqlite3: it looks at `code`, and for two of them at the message.

/** An error with one of SQLite's codes by name. */
function sqliteError(code, message, cause) {
  const error = new Error(message, { cause });
  error.code = code;
  return error;
}

/** SQLite's primary result codes that native code reacts to. */
const PRIMARY = new Map([
  [5, 'SQLITE_BUSY'],
  [6, 'SQLITE_LOCKED'],
  [19, 'SQLITE_CONSTRAINT'],
]);

/** An error with the code that better-sqlite3 would give it for SQLite's result code, if anything hangs on it. */
function byResultCode(error, resultCode) {
  const code = PRIMARY.get(resultCode & 0xff);
  return code === undefined ? error : sqliteError(code, error.message, error);
}

/** What any use of a closed handle throws. */
function closed() {
  return new TypeError('The database connection is not open');
}

/** What beginning a transaction throws while a statement of the application is unfinished. */
function busyExecuting() {
  return new TypeError('This database connection is busy executing a query');
}

module.exports = { busyExecuting, byResultCode, closed, sqliteError };
