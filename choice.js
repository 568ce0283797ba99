'use strict';

// What an application may choose: which tables are shared, and how. Checked here, where a mistake can be named as
// it was written, and handed to native code as plain data; resolvers stay on this side.

const { Mistake, REFERENCE, TABLE_LISTS, TABLE_OPTIONS, closest, described, refuseUnknown } = require('./options.js');

const RULES = ['lww', 'counter', 'max', 'min', 'set'];
// Which of the tenant's tables are made, and what native code calls it.
const MAKING = new Map([['auto', 'auto'], [true, 'always'], [false, 'never']]);

function fail(key, wanted, value) {
  throw new Mistake(`config.${key} must be ${wanted}, not ${described(value)}`);
}

function isRecord(value) {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

function entries(value, key, wanted) {
  if (!isRecord(value)) fail(key, wanted, value);
  return Object.entries(value).filter(([, inner]) => inner !== undefined);
}

function name(value, key) {
  if (typeof value !== 'string' || value === '') fail(key, 'a non-empty string', value);
  return value;
}

function names(value, key) {
  if (!Array.isArray(value)) fail(key, "an array of tables' names", value);
  return value.map((one, at) => name(one, `${key}[${at}]`));
}

function oneOf(value, allowed, key) {
  if (allowed.includes(value)) return value;
  const wanted = allowed.map((one) => `'${one}'`).join(', ');
  // A short word is most likely a misspelt one, and helps whoever reads the message.
  const given = typeof value === 'string' && value.length <= 20 ? `'${value}'` : described(value);
  throw new Mistake(`config.${key} must be one of ${wanted}, not ${given}`);
}

function rulesOf(table, merge, resolvers) {
  return entries(merge, `tables.${table}.merge`, 'an object of columns and rules').map(([column, rule]) => {
    const key = `tables.${table}.merge.${column}`;
    if (typeof rule === 'function') {
      resolvers.set(place(table, column), rule);
      return { column, rule: 'resolver' };
    }
    if (typeof rule !== 'string') fail(key, 'a rule or a function', rule);
    return { column, rule: oneOf(rule, RULES, key) };
  });
}

function tableOf(table, options, resolvers) {
  const at = `tables.${table}`;
  const list = closest(table, TABLE_LISTS);
  // A list under a name that is none of the lists' is most likely a misspelt one, and no table.
  if (Array.isArray(options) && list !== null) {
    throw new Mistake(`config.${at} is no list of tables; did you mean config.tables.${list}?`);
  }
  if (!isRecord(options)) fail(at, 'an object', options);
  refuseUnknown(Object.keys(options), TABLE_OPTIONS, `config.${at}`);
  const { identity, numbers, merge } = options;
  if (identity !== undefined) oneOf(identity, ['primaryKey'], `tables.${table}.identity`);
  if (numbers !== undefined) oneOf(numbers, ['apart'], `tables.${table}.numbers`);
  if (identity !== undefined && numbers !== undefined) {
    throw new Mistake(
      `config.tables.${table} has identity 'primaryKey' and numbers 'apart': with the one a row has the same number ` +
        "everywhere, with the other another one on each agent; choose one of them",
    );
  }
  return {
    name: table,
    isGlobal: identity === 'primaryKey',
    numbersApart: numbers === 'apart',
    rules: merge === undefined ? [] : rulesOf(table, merge, resolvers),
  };
}

function tablesOf(tables, resolvers) {
  const choice = { tables: [] };
  for (const [key, value] of entries(tables, 'tables', 'an object')) {
    if (TABLE_LISTS.includes(key) && (Array.isArray(value) || !isRecord(value))) choice[key] = names(value, `tables.${key}`);
    else choice.tables.push(tableOf(key, value, resolvers));
  }
  return choice;
}

function referencesOf(references) {
  if (!Array.isArray(references)) fail('references', 'an array', references);
  return references.map((one, at) => {
    const key = `references[${at}]`;
    if (!isRecord(one)) fail(key, 'an object', one);
    refuseUnknown(Object.keys(one), REFERENCE, `config.${key}`);
    const reference = { table: name(one.table, `${key}.table`), column: name(one.column, `${key}.column`) };
    if (one.by === undefined) return { ...reference, to: [[null, name(one.to, `${key}.to`)]] };
    const to = entries(one.to, `${key}.to`, `an object of values of ${name(one.by, `${key}.by`)} and tables`);
    return { ...reference, by: one.by, to: to.map(([value, table]) => [value, name(table, `${key}.to.${value}`)]) };
  });
}

function place(table, column) {
  return `${table}\0${column}`.toLowerCase();
}

/**
 * Reads `tables`, `references`, `existingRows` and `createSchema` of a configuration: what native code takes, and the
 * function that it asks to resolve conflicts. Throws a `Mistake` that names the first option that is wrong.
 */
function choiceOf(config) {
  const resolvers = new Map();
  const { tables, references, existingRows, createSchema } = config;
  const choice = tables === undefined ? { tables: [] } : tablesOf(tables, resolvers);
  if (references !== undefined) choice.references = referencesOf(references);
  if (existingRows !== undefined) oneOf(existingRows, ['old', 'new'], 'existingRows');
  choice.existingRowsAreOld = existingRows !== 'new';
  choice.createSchema = MAKING.get(createSchema === undefined ? 'auto' : createSchema);
  if (choice.createSchema === undefined) fail('createSchema', "a boolean or 'auto'", createSchema);
  return { choice: JSON.stringify(choice), resolver: { resolve: asking(resolvers) } };
}

/** What native code calls: it passes and takes every INTEGER as a bigint, every REAL as a number. */
function asking(resolvers) {
  return (table, column, local, localMs, localAgent, remote, remoteMs, remoteAgent) => {
    const context = {
      table,
      column,
      local: { writtenAt: localMs, agentId: localAgent },
      remote: { writtenAt: remoteMs, agentId: remoteAgent },
    };
    const value = resolvers.get(place(table, column))(readable(local), readable(remote), context);
    const areReal = typeof local === 'number' && typeof remote === 'number';
    return storable(value, areReal);
  };
}

function readable(value) {
  return typeof value === 'bigint' && Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

function storable(value, areReal) {
  if (typeof value === 'bigint') {
    if (BigInt.asIntN(64, value) === value) return value;
  } else if (typeof value === 'number') {
    if (Number.isSafeInteger(value) && !areReal) return BigInt(value);
    if (!Number.isNaN(value)) return value;
  } else if (value === null || typeof value === 'string') {
    return value;
  } else if (value instanceof Uint8Array) {
    return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  }
  const what = typeof value?.then === 'function' ? 'a promise' : `a value of type ${typeof value}`;
  throw new TypeError(`it returned ${what}: it must return null, a number, a bigint, a string or a Uint8Array`);
}

module.exports = { choiceOf };
