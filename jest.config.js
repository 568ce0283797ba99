'use strict';

/** @type {import('jest').Config} */
module.exports = {
  testMatch: ['<rootDir>/__test__/**/*.spec.ts'],
  // Types are checked by `npm run test:types`.
  transform: { '\\.ts$': ['ts-jest', { diagnostics: false }] },
  testEnvironment: 'node',
  // Most tests wait for real processes; those that need longer say so.
  testTimeout: 30_000,
};
