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
  [15, 'SQLITE_PROTOCOL'],
  [17, 'SQLITE_SCHEMA'],
  [19, 'SQLITE_CONSTRAINT'],
]);

/** An error with the code that better-sqlite3 would give it for SQLite's result code, if anything hangs on it. */
function byResultCode(error, resultCode) {
  const code = PRIMARY.get(resultCode & 0xff);
  return code === undefined ? error : sqliteError(code, error.message, error);
}

/** The same codes, for packages that do not give them, by how SQLite's messages begin or end. */
const MESSAGES = [
  [/ constraint failed(: |$)|^cannot store \w+ value in \w+ column /, 'SQLITE_CONSTRAINT'],
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
