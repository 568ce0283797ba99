// What samples say.

/** The value below which `share` of the samples lie (nearest rank). With few samples the p99 is the maximum. */
export function quantile(samples, share) {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))];
}

function side(name, samples, rows) {
  const [medianMs, p99Ms] = [quantile(samples, 0.5), quantile(samples, 0.99)];
  return { name, count: samples.length, medianMs, p99Ms, rowsPerSecond: rows && (1000 * rows) / medianMs, samples };
}

/** A comparison with its figures; all samples stay in it, in ms. */
export function result({ name, floorName, samples, rows }) {
  const subject = side(name, samples.subject, rows);
  const floor = side(floorName, samples.floor, rows);
  return {
    subject,
    floor,
    medianRatio: subject.medianMs / floor.medianMs,
    p99Ratio: subject.p99Ms / floor.p99Ms,
  };
}
