// Pure functions that turn an answer of `/jobs/{id}/series` into uPlot's columns. Times become seconds since 1970; a `null`
// in a column breaks its line, an `undefined` does not.

import { smoothed } from "./chart_smoothing.js";

const GAP_S = 1; // as the server's: a longer gap is time without a worker
const PAUSES_AT_MOST = 500;

const seconds = (milliseconds) => (milliseconds === null ? null : milliseconds / 1000);

const TOTALS = ["energy_kwh", "unpriced_kwh", "emissions_gco2e"]; // cumulative, at the end of each stretch

// Emissions up to the end of a stretch in gCO2e; null where none of the energy has a price.
export function emitted({ energy_kwh: energy, unpriced_kwh: unpriced, emissions_gco2e: emissions }, index) {
  return unpriced?.[index] > 0 && unpriced[index] >= energy[index] * (1 - 1e-5) ? null : emissions[index];
}

// Merges `fine`, which covers a part of the time with more points, into `whole`.
export function merged(whole, fine) {
  if (!fine) return whole;
  return {
    ...whole,
    loss: fine.loss.at.length ? spliced(whole.loss, fine.loss, "at", "at") : whole.loss,
    energy: fine.energy.start.length ? clipped(spliced(whole.energy, fine.energy, "start", "end"), fine.energy) : whole.energy,
  };
}

function spliced(whole, fine, start, end) {
  const indices = whole[start].map((_, index) => index);
  const before = indices.filter((index) => whole[start][index] < fine[start][0]);
  const after = indices.filter((index) => whole[end][index] > fine[end].at(-1));
  const pick = (column, kept) => kept.map((index) => column[index]);
  return Object.fromEntries(
    Object.entries(whole).map(([key, column]) => [key, [...pick(column, before), ...fine[key], ...pick(column, after)]]),
  );
}

// Cuts thinned-out stretches that overlap the finer ones, so that no pause and no fall of a cumulative value appears.
function clipped(joined, fine) {
  const [from, to] = [fine.start[0], fine.end.at(-1)];
  const first = joined.start.indexOf(from);
  const last = first + fine.start.length;
  if (first > 0 && joined.end[first - 1] > from) {
    const share = (from - joined.start[first - 1]) / (joined.end[first - 1] - joined.start[first - 1]);
    for (const key of TOTALS.filter((name) => joined[name])) {
      const earlier = first > 1 ? joined[key][first - 2] : 0;
      joined[key][first - 1] = earlier + share * (joined[key][first - 1] - earlier);
    }
    joined.end[first - 1] = from;
  }
  if (last < joined.start.length) joined.start[last] = Math.max(joined.start[last], to);
  return joined;
}

// Returns the times without a worker: [{from, to}].
export function pauses({ start, end }) {
  const found = [];
  for (let index = 1; index < start.length; index += 1) {
    const from = end[index - 1] / 1000;
    const to = start[index] / 1000;
    if (to - from > GAP_S) found.push({ from, to });
  }
  return found.sort((a, b) => b.to - b.from - (a.to - a.from)).slice(0, PAUSES_AT_MOST);
}

// Returns [{from, to, gco2e}] for `intensityBackground`; neighbours of the same band (`bandOf`) are joined.
export function backgroundOf({ start, end, intensity_gco2e_per_kwh: intensity }, bandOf) {
  const found = [];
  for (let index = 0; index < start.length; index += 1) {
    const part = { from: start[index] / 1000, to: end[index] / 1000, gco2e: intensity[index] };
    const last = found[found.length - 1];
    const same = last && part.from - last.to <= GAP_S && known(last) && known(part) && bandOf(last.gco2e) === bandOf(part.gco2e);
    if (same) last.to = Math.max(last.to, part.to);
    else found.push(part);
  }
  return found;
}

const known = (part) => part.gco2e !== null;

// Returns rows [x, ...values] as columns in order of time, from `extent[0]` to `extent[1]`, so that all panels have the
// same axis.
export function columnsOf(rows, count, extent) {
  const empty = Array.from({ length: count }, () => undefined);
  const all = [[extent[0], ...empty], ...rows.sort((a, b) => a[0] - b[0]), [extent[1], ...empty]];
  return Array.from({ length: count + 1 }, (_, column) => all.map((row) => row[column]));
}

export function rhoRows({ epoch, start, end, asked, reached }, latest) {
  const rows = [];
  epoch.forEach((_, index) => {
    const from = start[index] / 1000;
    const until = seconds(end[index]) ?? Math.max(from, index + 1 < start.length ? start[index + 1] / 1000 : latest);
    rows.push([from, asked[index], reached[index]], [until, asked[index], reached[index]]);
    if (index + 1 < start.length && start[index + 1] / 1000 - until > GAP_S) rows.push([until, null, null]);
  });
  return rows;
}

export function powerRows({ start, end, power_w: power }) {
  const rows = [];
  start.forEach((_, index) => {
    rows.push([start[index] / 1000, power[index]], [end[index] / 1000, power[index]]);
    if (index + 1 < start.length && start[index + 1] - end[index] > GAP_S * 1000) rows.push([end[index] / 1000, null]);
  });
  return rows;
}

// Returns rows of the loss at each step, the smoothed loss, and each evaluation; a pause breaks the lines.
export function lossRows({ loss, evaluation }, window, paused) {
  const smooth = smoothed(loss.step, loss.mean, window);
  return [
    ...paused.map(({ from, to }) => [(from + to) / 2, null, null, undefined]),
    ...loss.at.map((at, index) => [at / 1000, loss.value[index], smooth[index], undefined]),
    ...evaluation.at.map((at, index) => [at / 1000, undefined, undefined, evaluation.loss[index]]),
  ];
}

// Returns rows of cumulative emissions, and of a line from 0 to its total for each of `others`: [{start, end, gco2e}].
export function emissionRows(energy, others) {
  const { start, end } = energy;
  const none = others.map(() => undefined);
  const rows = [];
  start.forEach((_, index) => {
    rows.push([start[index] / 1000, index ? emitted(energy, index - 1) : undefined, ...none]);
    rows.push([end[index] / 1000, emitted(energy, index), ...none]);
  });
  others.forEach((other, index) => {
    rows.push([other.start, undefined, ...none.with(index, 0)], [other.end, undefined, ...none.with(index, other.gco2e)]);
  });
  return rows;
}
