// What a database holds, in a form that two databases can be compared by: exactly, cell by cell.

import { createHash } from 'node:crypto';

/**
 * The application's tables: name → { columns, rows }, each row an array of cells as texts that are equal exactly
 * if SQLite stores the same bytes.
 *
 * The number of an INTEGER PRIMARY KEY row is left out: two agents that both insert a row 1 have made two rows,
 * so a row may bear another number elsewhere. Rows are sorted by what they hold.
 */
export function contents(db) {
  const tables = db
    .prepare(
      `SELECT name FROM sqlite_master WHERE type = 'table'
       AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_federation\\_%' ESCAPE '\\' ORDER BY name`,
    )
    .pluck()
    .all();
  return Object.fromEntries(tables.map((table) => [table, tableContents(db, table)]));
}

function tableContents(db, table) {
  const described = db.prepare('SELECT name, type, pk FROM pragma_table_info(?)').all(table);
  const key = described.filter((column) => column.pk > 0);
  const isNumber = (column) => key.length === 1 && column.pk > 0 && column.type.toUpperCase() === 'INTEGER';
  const columns = described.filter((column) => !isNumber(column)).map((column) => column.name);
  const list = columns.map((column) => `"${column.replaceAll('"', '""')}"`).join(', ');
  const select = db.prepare(`SELECT ${list} FROM "${table.replaceAll('"', '""')}"`);
  const rows = select.raw().safeIntegers().all().map((row) => row.map(exactly));
  rows.sort((a, b) => (a.join('\n') < b.join('\n') ? -1 : 1));
  return { columns, rows };
}

/** A cell with its storage class: 1, 1.0 and '1' are three values, and so are 0.0 and -0.0. */
function exactly(value) {
  if (value === null) return 'null';
  if (typeof value === 'bigint') return `integer ${value}`;
  if (typeof value === 'number') return `real ${Object.is(value, -0) ? '-0' : value}`;
  if (typeof value === 'string') return `text ${JSON.stringify(value)}`;
  return `blob ${value.toString('hex')}`;
}

/** A short text that is the same for the same contents. */
export function fingerprint(held) {
  return createHash('sha256').update(JSON.stringify(held)).digest('hex').slice(0, 8);
}

/** How many cells there are. */
export function cellCount(held) {
  return Object.values(held).reduce((sum, { columns, rows }) => sum + columns.length * rows.length, 0);
}

/** Where two databases differ, in words; empty if every cell of one is in the other. */
export function differences(one, other) {
  const found = [];
  for (const table of new Set([...Object.keys(one), ...Object.keys(other)])) {
    const [a, b] = [one[table], other[table]];
    if (!a || !b) found.push(`table ${table} is on one side only`);
    else if (a.columns.join() !== b.columns.join()) found.push(`table ${table} has other columns`);
    else found.push(...rowDifferences(table, a, b));
  }
  return found;
}

function rowDifferences(table, a, b) {
  const found = [];
  if (a.rows.length !== b.rows.length) found.push(`${table}: ${a.rows.length} rows here, ${b.rows.length} there`);
  for (let row = 0; row < Math.min(a.rows.length, b.rows.length); row++) {
    a.columns.forEach((column, at) => {
      const [here, there] = [a.rows[row][at], b.rows[row][at]];
      if (here !== there) found.push(`${table}.${column}: ${brief(here)} here, ${brief(there)} there`);
    });
  }
  return found;
}

function brief(cell) {
  return cell.length > 60 ? `${cell.slice(0, 57)}...` : cell;
}
