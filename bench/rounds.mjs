// Turns: the floor, the subject, the floor, the subject...

/**
 * Lets two sides take turns, `rounds` times, after one round of warming up. Each side is a function that resolves
 * to durations in ms. The samples stay apart by round, so that neighbours in time can be compared.
 */
export async function interleave(rounds, floor, subject) {
  await floor();
  await subject();
  const samples = { floor: [], subject: [] };
  for (let round = 0; round < rounds; round++) {
    samples.floor.push(await floor());
    samples.subject.push(await subject());
  }
  return samples;
}

/** How long `work` takes, in ms. */
export async function timed(work) {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

/** The durations of `count` runs of `work`, in ms; `prepare` runs before each, untimed. */
export async function series(count, work, prepare = () => {}) {
  const durations = [];
  for (let run = 0; run < count; run++) {
    await prepare(run);
    durations.push(await timed(work));
  }
  return durations;
}
