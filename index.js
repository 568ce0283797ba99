'use strict';

// What must be JavaScript and not native code: ordinary classes that can be subclassed and spied on, errors of
// the caller's own realm whose stack shows the caller, the environment as JavaScript sees it, and logging.

const { AsyncLocalStorage } = require('node:async_hooks');

const { choiceOf } = require('./choice.js');
const { handleOf } = require('./handles');
const {
  Mistake,
  agentConfig,
  agentConfigOptions,
  described,
  hubOptions,
  revocationTarget,
} = require('./options.js');

const native = require('./platforms.js').load();

const NOT_CONNECTED = 'Not connected to federation hub';

/** What every rejected promise carries. */
class FederationError extends Error {
  constructor(code, message, options) {
    super(message, options);
    this.code = code;
    if (options?.retryAfterMs !== undefined) this.retryAfterMs = options.retryAfterMs;
  }
}
// As for the language's own errors, not an own property: it would show beside each stack.
Object.defineProperty(FederationError.prototype, 'name', {
  value: 'FederationError',
  configurable: true,
  writable: true,
});

/** Notes where a method was called, to be shown by an error that comes much later. */
function callSite() {
  const site = {};
  Error.captureStackTrace(site, callSite);
  return site;
}

/** What native code threw or rejected with, as an error whose stack begins at the call. */
function failure(error, site) {
  if (error instanceof FederationError) return error;
  if (error instanceof Mistake) return failure({ code: 'ERR_FEDERATION_CONFIG', message: error.message }, site);
  const known = typeof error?.code === 'string' && error.code.startsWith('ERR_FEDERATION_');
  const code = known ? error.code : 'ERR_FEDERATION_INTERNAL';
  const more = known ? { retryAfterMs: error.retryAfterMs } : { cause: error };
  const wrapped = new FederationError(code, error?.message ?? String(error), more);
  // Without the first frame, which is the method's own.
  const frames = site.stack.slice(site.stack.indexOf('\n    at ') + 1).replace(/^.*\n/, '');
  wrapped.stack = `FederationError [${code}]: ${wrapped.message}\n${frames}`;
  return wrapped;
}

/** Adds the certificate paths of the environment where the configuration gives none. */
function withEnvironment(config) {
  const { FEDERATION_CERT_PATH, FEDERATION_KEY_PATH, FEDERATION_CA_PATH } = process.env;
  return {
    ...config,
    certPath: config.certPath ?? (FEDERATION_CERT_PATH || undefined),
    keyPath: config.keyPath ?? (FEDERATION_KEY_PATH || undefined),
    caPath: config.caPath ?? (FEDERATION_CA_PATH || undefined),
  };
}

/** Answers an agent's questions for a token, by their numbers, with what the application's function gives. */
function tokensOf(giveToken, agent) {
  return {
    async ask(question) {
      try {
        // Not within the native call that asks.
        const token = await Promise.resolve().then(giveToken);
        if (typeof token === 'string' && token !== '') agent.giveToken(question, token);
        else agent.refuseToken(question, `it gave no token, but ${described(token)}`);
      } catch (error) {
        const why = typeof error?.message === 'string' ? error.message : 'it threw something that is no error';
        agent.refuseToken(question, why);
      }
    },
  };
}

/** What every logger of pino has. It takes facts before the message, and drops those that come behind it. */
const PINO = Symbol.for('pino.serializers');

/** Knows from inside of which handle's migration something is called; made when it is first needed. */
let migrations = null;

class FederationHub {
  #config;
  #agent = null;
  #resolver = {};
  #tokens = {};

  constructor(config) {
    this.#config = { ...config };
  }

  async connect() {
    const site = callSite();
    const { endpoint, agentId, enableMTLS } = this.#config;
    this.#log('info', 'Connecting to federation hub', { endpoint, agentId, mTLS: enableMTLS ?? true });
    try {
      this.#agent ??= this.#makeAgent();
      await this.#agent.connect(this.#tokens);
    } catch (cause) {
      // An agent that has never connected knows nothing that is worth keeping, and the environment may change.
      if (this.getSyncStats().lastSyncTime === 0) this.#agent = null;
      const error = failure(cause, site);
      this.#log('error', 'Failed to connect to federation hub', { endpoint, error: error.message });
      throw error;
    }
    this.#log('info', 'Connected to federation hub', { agentId });
  }

  async sync(database) {
    const site = callSite();
    if (!this.isConnected()) {
      throw failure({ code: 'ERR_FEDERATION_NOT_CONNECTED', message: NOT_CONNECTED }, site);
    }
    const { agentId } = this.#config;
    try {
      const { surface, statements } = handleOf(database);
      if (statements === migrations?.getStore()) {
        throw new FederationError('ERR_FEDERATION_DATABASE', 'inside migrate() its database cannot be synced');
      }
      const report = await this.#agent.sync(surface, statements, this.#resolver, this.#tokens);
      this.#logSync(report);
      return report;
    } catch (cause) {
      const error = failure(cause, site);
      this.#log('error', 'Sync failed', { agentId, error: error.message });
      throw error;
    }
  }

  static async migrate(database, change) {
    const site = callSite();
    if (typeof database === 'string' || typeof change !== 'function') {
      throw new FederationError('ERR_FEDERATION_CONFIG', 'migrate() takes an open handle and a function');
    }
    let handle;
    const run = async (half) => {
      try {
        handle ??= handleOf(database);
        await native.FederationHub[half](handle.surface, handle.statements);
      } catch (cause) {
        throw failure(cause, site);
      }
    };
    await run('beginMigration');
    migrations ??= new AsyncLocalStorage();
    let outcome;
    try {
      outcome = await migrations.run(handle.statements, change, database);
    } catch (error) {
      // What the function threw tells more than what follows from it. The next sync brings capture back.
      await run('endMigration').catch(() => {});
      throw error;
    }
    await run('endMigration');
    return outcome;
  }

  static async detach(database) {
    const site = callSite();
    try {
      const { surface, statements } = handleOf(database);
      await native.FederationHub.detach(surface, statements);
    } catch (cause) {
      throw failure(cause, site);
    }
  }

  async disconnect() {
    if (!this.isConnected()) return;
    const site = callSite();
    this.#log('info', 'Disconnecting from federation hub', { agentId: this.#config.agentId });
    try {
      await this.#agent.disconnect();
    } catch (cause) {
      throw failure(cause, site);
    }
    this.#log('info', 'Disconnected from federation hub');
  }

  isConnected() {
    return this.#agent !== null && this.#agent.isConnected();
  }

  getSyncStats() {
    return this.#agent === null ? { lastSyncTime: 0, vectorClock: {} } : this.#agent.getSyncStats();
  }

  #makeAgent() {
    const { token } = this.#config;
    const isFunction = typeof token === 'function';
    const config = withEnvironment(agentConfig({ ...this.#config, ...(isFunction && { token: 'asked for' }) }));
    if (isFunction) config.token = '';
    const { choice, resolver } = choiceOf(this.#config);
    this.#resolver = resolver;
    const agent = new native.FederationHub(config, choice);
    this.#tokens = isFunction ? tokensOf(token, agent) : {};
    return agent;
  }

  #logSync(report) {
    const { agentId } = this.#config;
    const { pulled, pushed, conflicts, notices, durationMs } = report;
    if (pulled > 0) this.#log('info', 'Pulled remote updates', { agentId, updateCount: pulled });
    if (pushed > 0) this.#log('info', 'Pushed local changes', { agentId, changeCount: pushed });
    if (conflicts > 0) this.#log('warn', 'Conflict detected, applying resolution', { agentId, conflicts });
    for (const notice of notices) this.#log('warn', notice, { agentId });
    this.#log('info', 'Sync completed', { agentId, duration: durationMs, pullCount: pulled, pushCount: pushed });
  }

  #log(level, message, facts) {
    const { logger } = this.#config;
    if (!logger) return;
    try {
      const inOrder = facts !== undefined && PINO in logger ? [facts, message] : [message, facts];
      const logged = logger[level](...inOrder.filter((one) => one !== undefined));
      // A logger that throws, at once or later, must neither break a sync nor end the process.
      if (typeof logged?.then === 'function') Promise.resolve(logged).catch(() => {});
    } catch {
      // As above.
    }
  }
}

/** Hubs that run: one that nobody refers to any more still serves its agents, and must not be collected. */
const running = new Set();

class FederationHubServer {
  #hub;
  #keepAlive = null;
  #throwaway = false;

  constructor(options) {
    const site = callSite();
    try {
      this.#hub = new native.FederationHubServer(hubOptions(options));
    } catch (cause) {
      throw failure(cause, site);
    }
  }

  static async generateCredentials() {
    const site = callSite();
    try {
      return await native.FederationHubServer.generateCredentials();
    } catch (cause) {
      throw failure(cause, site);
    }
  }

  static async ephemeral(options) {
    const credentials = options?.credentials ?? (await FederationHubServer.generateCredentials());
    const server = new this({ listen: '127.0.0.1:0', dataPath: ':memory:', ...options, credentials });
    server.#throwaway = true;
    await server.start();
    return server;
  }

  async start() {
    const site = callSite();
    try {
      await this.#hub.start();
    } catch (cause) {
      throw failure(cause, site);
    }
    running.add(this);
    // Native threads do not keep a process alive; a hub that somebody started to serve has to.
    if (!this.#throwaway) this.#keepAlive ??= setInterval(() => {}, 2 ** 30);
  }

  get endpoint() {
    return this.#hub.endpoint;
  }

  get metricsEndpoint() {
    return this.#hub.metricsEndpoint;
  }

  get credentials() {
    return this.#hub.credentials;
  }

  getStats() {
    return this.#hub.getStats();
  }

  async revoke(target) {
    const site = callSite();
    try {
      await this.#hub.revoke(revocationTarget(target));
    } catch (cause) {
      throw failure(cause, site);
    }
  }

  async reinstate(target) {
    const site = callSite();
    try {
      return await this.#hub.reinstate(revocationTarget(target));
    } catch (cause) {
      throw failure(cause, site);
    }
  }

  revocations() {
    return this.#hub.revocations();
  }

  async backup(path) {
    const site = callSite();
    try {
      if (typeof path !== 'string' || path === '') {
        throw new FederationError('ERR_FEDERATION_CONFIG', `path must be a non-empty string, not ${described(path)}`);
      }
      await this.#hub.backup(path);
    } catch (cause) {
      throw failure(cause, site);
    }
  }

  async tenants() {
    return this.#operate('tenants', callSite());
  }

  async describe(tenantId) {
    return this.#operate('describe', callSite(), { tenantId });
  }

  async dropTable(tenantId, table) {
    return this.#operate('dropTable', callSite(), { tenantId, table });
  }

  async dropDefinition(tenantId, table, name) {
    return this.#operate('dropDefinition', callSite(), { tenantId, table, name });
  }

  async readmit(tenantId, table, name) {
    const named = name === undefined ? {} : { name };
    return this.#operate('readmit', callSite(), { tenantId, table, ...named });
  }

  async eraseTenant(tenantId) {
    return this.#operate('eraseTenant', callSite(), { tenantId });
  }

  async compact() {
    return this.#operate('compact', callSite());
  }

  /** Calls a method of the native hub with names, each of which has to be one. */
  async #operate(method, site, names = {}) {
    try {
      for (const [what, name] of Object.entries(names)) {
        if (typeof name !== 'string' || name === '') {
          throw new Mistake(`${method}(): ${what} must be a non-empty string, not ${described(name)}`);
        }
      }
      return await this.#hub[method](...Object.values(names));
    } catch (cause) {
      throw failure(cause, site);
    }
  }

  agentConfig(options) {
    const site = callSite();
    try {
      return this.#hub.agentConfig(agentConfigOptions(options));
    } catch (cause) {
      throw failure(cause, site);
    }
  }

  async stop() {
    const site = callSite();
    try {
      await this.#hub.stop();
    } catch (cause) {
      throw failure(cause, site);
    } finally {
      clearInterval(this.#keepAlive);
      this.#keepAlive = null;
      running.delete(this);
    }
  }
}

if (Symbol.asyncDispose) {
  const dispose = (name) => ({
    value() {
      return this[name]();
    },
    configurable: true,
    writable: true,
  });
  Object.defineProperty(FederationHub.prototype, Symbol.asyncDispose, dispose('disconnect'));
  Object.defineProperty(FederationHubServer.prototype, Symbol.asyncDispose, dispose('stop'));
}

module.exports.FederationHub = FederationHub;
module.exports.FederationHubServer = FederationHubServer;
module.exports.FederationError = FederationError;
