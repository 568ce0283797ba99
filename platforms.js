'use strict';

// Loads the addon, or says what this system lacks. What the generated loader says is about npm, whatever the reason.

/** What there is an addon for, as `npm/` has it. */
const PLATFORMS = [
  ['linux', 'x64', 'Linux on x64 with glibc 2.34 or later'],
  ['linux', 'arm64', 'Linux on arm64 with glibc 2.34 or later'],
  ['darwin', 'x64', 'macOS on x64'],
  ['darwin', 'arm64', 'macOS on arm64'],
  ['win32', 'x64', 'Windows on x64'],
];

function load() {
  try {
    return require('./native.js');
  } catch (cause) {
    const all = PLATFORMS.map(([, , name]) => name).join('; ');
    throw new Error(`federation-hub cannot run here: ${reason(cause)}. It has addons for: ${all}`, { cause });
  }
}

function reason(cause) {
  const { platform, arch } = process;
  const glibc = platform === 'linux' ? process.report?.getReport().header.glibcVersionRuntime : undefined;
  if (!PLATFORMS.some(([system, processor]) => system === platform && processor === arch)) {
    return `there is no addon for ${platform} on ${arch}`;
  }
  if (platform === 'linux' && glibc === undefined) {
    return 'there is no addon for Linux without glibc, such as Alpine with its musl; use an image of Debian (node:22-slim)';
  }
  // The loader tries several files; those that are not there are no news.
  const said = messages(cause).find((message) => !message.startsWith('Cannot find')) ?? '';
  const [, needed] = /version [`']GLIBC_([\d.]+)' not found/.exec(said) ?? [];
  if (needed !== undefined) {
    return `this system's glibc is ${glibc}, and the addon needs ${needed}; use a later release of the system`;
  }
  if (said === '') {
    return (
      "the package with the addon is not installed. It is an optional dependency: install again without --omit=optional, " +
      'on this system and not on another one, and without a package-lock.json that was made elsewhere'
    );
  }
  return `the addon cannot be loaded (${said.split('\n', 1)[0]})`;
}

/** What an error says, and what led to it; the deepest cause first. */
function messages(error) {
  const all = [];
  for (let at = error; at instanceof Error && all.length < 50; at = at.cause) all.unshift(at.message);
  return all;
}

module.exports = { PLATFORMS, load };
