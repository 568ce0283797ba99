'use strict';

// The options that there are, at every level, and what is wrong with those that were given. A name that is not here is
// refused: a misspelt `clientCaPath` would otherwise start a hub that asks for no certificates. What follows from
// `tables`, `references`, `existingRows` and `createSchema` is checked in choice.js.

/** Something that whoever wrote the options has to mend; its message names the option. */
class Mistake extends Error {}

/** An option that is known here and checked in choice.js, or used as it is. */
const ELSEWHERE = 'elsewhere';

const CONFIG = {
  endpoint: 'string',
  agentId: 'string',
  tenantId: 'string',
  token: 'string',
  enableMTLS: 'boolean?',
  certPath: 'string?',
  keyPath: 'string?',
  caPath: 'string?',
  certPem: 'string?',
  keyPem: 'string?',
  caPem: 'string?',
  connectTimeoutMs: 'number?',
  requestTimeoutMs: 'number?',
  tables: ELSEWHERE,
  references: ELSEWHERE,
  existingRows: ELSEWHERE,
  createSchema: ELSEWHERE,
  logger: ELSEWHERE,
};

const TABLE_LISTS = ['include', 'exclude'];
const TABLE_OPTIONS = ['identity', 'numbers', 'merge'];
const REFERENCE = ['table', 'column', 'by', 'to'];

const LIMITS = {
  maxAgents: 'number?',
  maxAgentsPerTenant: 'number?',
  maxConnectionsPerAddress: 'number?',
  maxTablesPerTenant: 'number?',
  maxColumnsPerTenant: 'number?',
  maxReplicasPerTenant: 'number?',
  maxRowBytes: 'number?',
  maxBatchBytes: 'number?',
  maxRowsPerSecond: 'number?',
  maxBytesPerSecond: 'number?',
  maxMemoryBytes: 'number?',
  maxStoredBytesPerTenant: 'number?',
  idleTimeoutMs: 'number?',
  handshakeTimeoutMs: 'number?',
  frameTimeoutMs: 'number?',
};

const CREDENTIALS = {
  caCertPem: 'string',
  caKeyPem: 'string',
  hubCertPem: 'string',
  hubKeyPem: 'string',
  jwtSecret: 'string',
};

const SERVER_OPTIONS = {
  listen: 'string',
  dataPath: 'string',
  certPath: 'string?',
  certPem: 'string?',
  keyPath: 'string?',
  keyPem: 'string?',
  clientCaPath: 'string?',
  clientCaPem: 'string?',
  crlPath: 'string?',
  crlPem: 'string?',
  trustDomain: 'string?',
  requireCertificateIdentity: 'boolean?',
  jwtSecret: 'string?',
  jwtPublicKeyPath: 'string?',
  jwtPublicKeyPem: 'string?',
  jwksPath: 'string?',
  jwtAlgorithm: 'string?',
  jwtIssuer: 'string?',
  jwtAudience: 'string?',
  jwtLeewayMs: 'number?',
  agentTtl: 'number?',
  drainTimeoutMs: 'number?',
  limits: 'object?',
  log: 'string?',
  logLevel: 'string?',
  metricsListen: 'string?',
  credentials: 'object?',
};

const AGENT_CONFIG_OPTIONS = {
  agentId: 'string',
  tenantId: 'string',
  expiresInMs: 'number?',
  permissions: 'object?',
  tokenId: 'string?',
  token: 'string?',
};

const REVOCATION_TARGET = {
  tenantId: 'string?',
  agentId: 'string?',
  tokenId: 'string?',
  expiresAt: 'number?',
};

/** Options that belong one level below another's, where people look for them. */
const BENEATH = new Map([
  [CONFIG, [...TABLE_LISTS.map((name) => `tables.${name}`), ...TABLE_OPTIONS.map((name) => `tables.<table>.${name}`)]],
  [SERVER_OPTIONS, Object.keys(LIMITS).map((name) => `limits.${name}`)],
]);

/** The longest misspelt name that is compared and repeated, in characters. */
const MAX_NAME = 60;

/** An agent's configuration: a plain copy of what native code takes as it is. */
function agentConfig(config) {
  return checked(config, CONFIG, 'config');
}

/** A hub's options: a plain copy, what is within them included. */
function hubOptions(options) {
  const copy = checked(withoutNull(options, 'options'), SERVER_OPTIONS, 'options');
  if (copy.limits) copy.limits = checked(copy.limits, LIMITS, 'options.limits');
  if (copy.credentials) copy.credentials = checked(copy.credentials, CREDENTIALS, 'options.credentials');
  return copy;
}

/** Whom `agentConfig()` is asked for. */
function agentConfigOptions(options) {
  return checked(withoutNull(options, 'options'), AGENT_CONFIG_OPTIONS, 'options');
}

/** Whom `revoke()` and `reinstate()` are about. */
function revocationTarget(target) {
  return checked(withoutNull(target, 'target'), REVOCATION_TARGET, 'target');
}

/** The options, none of which is null: it would be taken for "no limit", and may be a mistake of whoever computed it. */
function withoutNull(options, at) {
  for (const [key, value] of Object.entries(options ?? {})) {
    if (value === null) throw new Mistake(`${at}.${key} must not be null: leave it out if you mean all`);
  }
  return options;
}

/** A plain copy of the options, or a `Mistake` that names the first that is unknown, missing or wrong. */
function checked(options, shape, at) {
  if (options === null || typeof options !== 'object') {
    throw new Mistake(`${at} must be an object, not ${described(options)}`);
  }
  refuseUnknown(Object.keys(options), Object.keys(shape), at, BENEATH.get(shape));
  const copy = {};
  for (const [key, rule] of Object.entries(shape)) {
    if (rule === ELSEWHERE) continue;
    const value = options[key] ?? undefined;
    const type = rule.replace('?', '');
    if (value === undefined && rule.endsWith('?')) continue;
    if (typeof value !== type || value === '') {
      const wanted = type === 'string' ? 'non-empty string' : type;
      throw new Mistake(`${at}.${key} must be a ${wanted}, not ${described(value)}`);
    }
    copy[key] = value;
  }
  return copy;
}

/**
 * Refuses the first of the names that is not among those allowed, also where nothing was given for it. `beneath` are
 * options of deeper levels that it may have been meant for, as paths.
 */
function refuseUnknown(names, allowed, at, beneath = []) {
  for (const name of names) {
    if (allowed.includes(name)) continue;
    const shown = name.length > MAX_NAME ? `${name.slice(0, MAX_NAME)}…` : name;
    const meant = closest(name, [...allowed, ...beneath]);
    const help = meant === null ? `there are: ${allowed.join(', ')}` : `did you mean ${at}.${meant}?`;
    throw new Mistake(`${at}.${shown} is no option; ${help}`);
  }
}

/** The one of these paths whose last name is most like this one; null if none is alike. */
function closest(name, paths) {
  let found = null;
  let least = Infinity;
  for (const path of paths) {
    const [one, other] = [plain(name), plain(path.slice(path.lastIndexOf('.') + 1))];
    const distance = edits(one, other);
    if (distance < least && distance <= Math.max(one.length, other.length) / 3) [found, least] = [path, distance];
  }
  return found;
}

/** A name without what differs between ways to write names: `client_ca_path`, `clientCAPath`. */
function plain(name) {
  return name.slice(0, MAX_NAME).toLowerCase().replace(/[-_]/g, '');
}

/** How many characters are to be added, removed or replaced to turn one text into the other. */
function edits(one, other) {
  let above = Array.from({ length: other.length + 1 }, (_, at) => at);
  for (const [row, letter] of [...one].entries()) {
    const line = [row + 1];
    for (let at = 0; at < other.length; at++) {
      const replaced = above[at] + (other[at] === letter ? 0 : 1);
      line.push(Math.min(replaced, above[at + 1] + 1, line[at] + 1));
    }
    above = line;
  }
  return above[other.length];
}

// Names and rules are no secrets, but whatever else was put in their place may be one.
function described(value) {
  if (value === null || value === undefined) return String(value);
  if (value === '') return 'an empty string';
  return Array.isArray(value) ? 'an array' : `of type ${typeof value}`;
}

module.exports = {
  Mistake,
  REFERENCE,
  TABLE_LISTS,
  TABLE_OPTIONS,
  agentConfig,
  agentConfigOptions,
  closest,
  described,
  hubOptions,
  refuseUnknown,
  revocationTarget,
};
