// Waiting, for the two scenes in which it matters which of two writes came later.

export { setTimeout as sleep } from 'node:timers/promises';

/** Long enough for two writes to be told apart by the clock, whatever the machine is busy with. */
export const A_WHILE_MS = 250;
