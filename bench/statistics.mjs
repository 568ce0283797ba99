// What samples say.

/** The value below which `share` of the samples lie (nearest rank). With few samples the p99 is the maximum. */
export function quantile(samples, share) {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))];
}

function side(name, rounds, rows) {
  const samples = rounds.flat();
  const [medianMs, p99Ms] = [quantile(samples, 0.5), quantile(samples, 0.99)];
  return { name, count: samples.length, medianMs, p99Ms, rowsPerSecond: rows && (1000 * rows) / medianMs, rounds };
}

/**
 * A comparison with its figures; all samples stay in it, in ms.
 *
 * `roundRatios` tells how far the ratio can be trusted: of each round's two medians, made within moments of each
 * other, the ratio; and of those the 10th, 50th and 90th percentile. If they lie far apart, the machine or its disk
 * was busy with something else, and the ratio of the medians over all rounds says little.
 */
export function result({ name, floorName, samples, rows }) {
  const subject = side(name, samples.subject, rows);
  const floor = side(floorName, samples.floor, rows);
  const ratios = samples.subject.map((round, at) => quantile(round, 0.5) / quantile(samples.floor[at], 0.5));
  return {
    subject,
    floor,
    medianRatio: subject.medianMs / floor.medianMs,
    p99Ratio: subject.p99Ms / floor.p99Ms,
    roundRatios: { p10: quantile(ratios, 0.1), p50: quantile(ratios, 0.5), p90: quantile(ratios, 0.9) },
  };
}
