// A curve without its noise: the exponentially weighted mean of what came before, over steps rather than points, so that
// points that the server left out count as the steps they stand for.

// `window`: after so many steps a value weighs 1/e of what it did. The weights add up to 1 from the beginning on: the
// first value is not favoured. What is null stays null and counts for nothing.
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

// A hundredth of the run, so that a curve of any length has a similar look, and lags behind by little.
export const windowOf = (steps) => (steps.length ? Math.max(5, Math.round((steps[steps.length - 1] - steps[0] + 1) / 100)) : 5);
