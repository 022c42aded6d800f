// Smooths a curve by the exponentially weighted mean of earlier values, weighted by steps rather than points, so that the
// points that the server left out count.

// `window`: number of steps after which a weight has fallen to 1/e. The weights add up to 1 from the first step on, so the
// first value is not overweighted. A null stays null and has no weight.
export function smoothed(steps, values, window) {
  let sum = 0;
  let weight = 0;
  let last = null;
  return values.map((value, index) => {
    if (value === null) return null;
    const kept = Math.exp(-(last === null ? 1 : steps[index] - last) / window);
    last = steps[index];
    sum = sum * kept + value * (1 - kept);
    weight = weight * kept + (1 - kept);
    return weight ? sum / weight : value;
  });
}

// Returns the window, a hundredth of the run's steps, so that curves of any length look similar and lag little.
export const windowOf = (steps) => (steps.length ? Math.max(5, Math.round((steps[steps.length - 1] - steps[0] + 1) / 100)) : 5);
