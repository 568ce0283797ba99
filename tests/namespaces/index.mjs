// An agent and a hub in network namespaces of their own, in processes of their own, with the kernel's own IP between them:
// over a wire that loses, delays and reorders packets, is narrow, or is cut. Needs root; says so where it cannot run.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { FederationHubServer } from 'federation-hub';

import { Remote } from '../../demo/remote.mjs';
import { sleep } from '../../demo/sleep.mjs';
import { certificateFor } from './certificate.mjs';

// Two runs may share a machine.
const [HUB, AGENT] = [`federation-hub-${process.pid}`, `federation-agent-${process.pid}`];
const [HUB_DEVICE, AGENT_DEVICE] = [`fh${process.pid}`, `fa${process.pid}`];
const [HUB_ADDRESS, AGENT_ADDRESS, NEXT_ADDRESS] = ['10.77.0.1', '10.77.0.2', '10.77.0.3'];
const FAIR = { lost: 0, overtaken: 0, delayMs: 0 };
const NOTES = 'CREATE TABLE IF NOT EXISTS notes(id INTEGER PRIMARY KEY, body)';
// A megabyte that does not compress.
const MANY = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
              INSERT INTO notes(body) SELECT randomblob(1000) FROM n`;
const BODIES = 'SELECT body FROM notes ORDER BY body';

const ip = (...args) => execFileSync('ip', args, { stdio: ['ignore', 'pipe', 'pipe'] });

function remove(namespace) {
  try {
    ip('netns', 'del', namespace);
  } catch {
    // It was never made.
  }
}

/** Why this machine cannot run it; undefined if it can. */
function obstacle() {
  if (process.getuid?.() !== 0) return 'only root may make network namespaces';
  if (!existsSync('/dev/net/tun')) return 'there is no /dev/net/tun';
  for (const [command, ...args] of [['ip', '-V'], ['python3', '-V'], ['openssl', 'version']]) {
    try {
      execFileSync(command, args, { stdio: 'ignore' });
    } catch {
      return `there is no ${command}`;
    }
  }
  try {
    ip('netns', 'add', HUB);
    ip('-n', HUB, 'tuntap', 'add', 'dev', HUB_DEVICE, 'mode', 'tun');
  } catch (error) {
    return `this machine allows none: ${error.stderr}`.trim();
  } finally {
    remove(HUB);
  }
  return undefined;
}

/** The two namespaces, and the wire between them. */
class Network {
  #wire;
  #said;

  static async open() {
    const network = new Network();
    for (const name of [HUB, AGENT]) ip('netns', 'add', name);
    const ends = [`${HUB}:${HUB_DEVICE}:${HUB_ADDRESS}/24`, `${AGENT}:${AGENT_DEVICE}:${AGENT_ADDRESS}/24`];
    const program = fileURLToPath(new URL('wire.py', import.meta.url));
    network.#wire = spawn('python3', [program, ...ends], { stdio: ['pipe', 'pipe', 'inherit'] });
    network.#said = createInterface({ input: network.#wire.stdout })[Symbol.asyncIterator]();
    assert.equal((await network.#said.next()).value, 'ready');
    return network;
  }

  async weather(weather) {
    this.#wire.stdin.write(`${JSON.stringify({ ...FAIR, ...weather })}\n`);
    assert.equal((await this.#said.next()).value, 'changed');
  }

  setMtu(bytes) {
    ip('-n', HUB, 'link', 'set', HUB_DEVICE, 'mtu', bytes);
    ip('-n', AGENT, 'link', 'set', AGENT_DEVICE, 'mtu', bytes);
  }

  moveAgent(from, to) {
    ip('-n', AGENT, 'addr', 'add', `${to}/24`, 'dev', AGENT_DEVICE);
    ip('-n', AGENT, 'addr', 'del', `${from}/24`, 'dev', AGENT_DEVICE);
    // The first address takes the others of its network with it.
    ip('-n', AGENT, 'addr', 'replace', `${to}/24`, 'dev', AGENT_DEVICE);
  }

  close() {
    this.#wire?.kill();
    for (const name of [HUB, AGENT]) remove(name);
  }
}

/** A module of the demo, in a process in a namespace. */
function start(namespace, module) {
  const inside = { execPath: 'ip', execArgv: ['netns', 'exec', namespace, process.execPath] };
  return new Remote(new URL(`../../demo/${module}`, import.meta.url), inside);
}

/** Agents, and the hub that they meet at. */
class Company {
  #hub;
  #remotes = [];

  static async open() {
    const company = new Company();
    const credentials = await FederationHubServer.generateCredentials();
    company.#hub = start(HUB, 'hub-process.mjs');
    company.#remotes.push(company.#hub);
    const certificate = certificateFor(HUB_ADDRESS, credentials);
    await company.#hub.call('start', { listen: `${HUB_ADDRESS}:0`, dataPath: ':memory:', credentials, ...certificate });
    return company;
  }

  /** An agent: on the far side of the wire, or beside the hub. */
  async agent(agentId, namespace, options = {}) {
    const agent = start(namespace, 'agent-process.mjs');
    this.#remotes.push(agent);
    const config = await this.#hub.call('agentConfig', { agentId, tenantId: 'acme' });
    await agent.call('connect', { connectTimeoutMs: 30_000, requestTimeoutMs: 60_000, ...config, ...options });
    await agent.call('run', NOTES, []);
    await agent.call('sync');
    return agent;
  }

  async close() {
    for (const remote of this.#remotes) await remote.end();
  }
}

/** Each agent of the two has what the other one wrote. */
async function assertTold(near, far) {
  const [report, bodies] = [await near.call('sync'), await far.call('all', BODIES, [])];
  assert.equal(report.pulled, 1_000);
  assert.deepEqual(await near.call('all', BODIES, []), bodies);
}

const scenes = {
  async 'loses 5 % of all packets'(stage) {
    await stage.far({ lost: 50 });
  },
  async 'loses 20 % of all packets'(stage) {
    await stage.far({ lost: 200 });
  },
  async 'takes 300 ms there and back'(stage) {
    await stage.far({ delayMs: 150 });
  },
  async 'lets a quarter of all packets overtake others'(stage) {
    await stage.far({ overtaken: 250 });
  },
  async 'carries no packet of more than 1,280 bytes'(stage) {
    stage.network.setMtu(1_280);
    await stage.far({});
    stage.network.setMtu(1_500);
  },
  async 'is cut for 30 s in mid-sync'(stage) {
    await stage.far({ delayMs: 50 }, async () => {
      await stage.network.weather({ lost: 1_000 });
      await sleep(30_000);
      await stage.network.weather({});
    });
  },
  async 'gives the agent another address in mid-sync'(stage) {
    await stage.far({ delayMs: 50 }, () => stage.network.moveAgent(AGENT_ADDRESS, NEXT_ADDRESS));
    stage.network.moveAgent(NEXT_ADDRESS, AGENT_ADDRESS);
  },
  async 'lets no UDP through'({ network, company }) {
    await network.weather({ lost: 1_000 });
    const agent = company.agent('nobody', AGENT, { connectTimeoutMs: 2_000 });
    await assert.rejects(agent, (error) => error.code === 'ERR_FEDERATION_UNREACHABLE' && /UDP/.test(error.message));
    await network.weather({});
  },
};

async function play() {
  let [network, company] = [];
  try {
    network = await Network.open();
    company = await Company.open();
    const near = await company.agent('near', HUB);
    /** A new agent behind the wire takes over all that there is, and pushes a megabyte; meanwhile something happens. */
    const far = async (weather, meanwhile = async () => {}) => {
      await network.weather(weather);
      const agent = await company.agent(`far ${Object.values(weather)} ${Math.random()}`, AGENT);
      assert.deepEqual(await agent.call('all', BODIES, []), await near.call('all', BODIES, []));
      await agent.call('run', MANY, []);
      const sync = agent.call('sync');
      await sleep(120);
      const [report] = await Promise.all([sync, meanwhile()]);
      assert.equal(report.pushed, 1_000);
      await network.weather({});
      await assertTold(near, agent);
      await agent.end();
    };
    for (const [what, scene] of Object.entries(scenes)) {
      const begun = performance.now();
      await scene({ network, company, far });
      console.log(`ok - a network that ${what} (${((performance.now() - begun) / 1_000).toFixed(1)} s)`);
    }
  } finally {
    await company?.close();
    network?.close();
  }
}

const reason = obstacle();
if (reason) console.log(`skipped: networks in namespaces of their own, because ${reason}`);
else await play();
