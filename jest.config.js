'use strict';

// Types are checked by `npm run test:types`.
const typescript = ['ts-jest', { diagnostics: false }];

const commonJs = { allowJs: true, module: 'commonjs', esModuleInterop: true, target: 'es2022' };

/** @type {import('jest').Config} */
module.exports = {
  testMatch: ['<rootDir>/__test__/**/*.spec.ts'],
  transform: {
    '\\.ts$': typescript,
    // Their modules are ESM, which jest runs only transformed.
    '/node_modules/(agentdb|kysely)/.+\\.js$': ['ts-jest', { diagnostics: false, tsconfig: commonJs }],
  },
  transformIgnorePatterns: ['/node_modules/(?!(agentdb|kysely)/)'],
  testEnvironment: 'node',
  // All cores: most tests wait for real processes; those that need longer say so.
  maxWorkers: '100%',
  testTimeout: 30_000,
};
