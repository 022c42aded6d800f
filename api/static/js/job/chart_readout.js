// One line with the values of all panels at one time.

import { element } from "../dom.js";
import { UNKNOWN, number, time } from "../format.js";
import { intensityElement } from "../intensity.js";
import { emitted } from "./chart_columns.js";

const HINT = matchMedia("(hover: none)").matches
  ? "Tap a panel for its figures at a time."
  : "Point at a panel for its figures. Drag to zoom; double click shows all again. " +
    "On a panel with the focus: + and − zoom, arrow keys move, with Shift they point, 0 shows all.";

// Returns the last index whose value is at or below `value`, by bisection in a rising column; -1 where there is none.
export function indexAt(column, value) {
  let low = 0;
  let high = column.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (column[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

// Returns the values at a time in seconds: {epoch, asked, reached, paused, intensity, power, step, loss, smoothed, evaluated,
// emissions}; `evaluated` is the newest evaluation, {step, loss}.
export function valuesAt(series, smooth, at) {
  const milliseconds = at * 1000;
  const { rho, energy, loss, evaluation } = series;
  const evaluated = indexAt(evaluation.at, milliseconds);
  const epoch = indexAt(rho.start, milliseconds);
  const inEpoch = epoch >= 0 && (rho.end[epoch] === null || milliseconds <= rho.end[epoch]);
  const stretch = indexAt(energy.start, milliseconds);
  const metered = stretch >= 0 && milliseconds <= energy.end[stretch];
  const step = indexAt(loss.at, milliseconds);
  return {
    epoch: inEpoch ? rho.epoch[epoch] : null,
    asked: inEpoch ? rho.asked[epoch] : null,
    reached: inEpoch ? rho.reached[epoch] : null,
    paused: !metered && stretch >= 0 && stretch + 1 < energy.start.length,
    intensity: metered ? energy.intensity_gco2e_per_kwh[stretch] : null,
    power: metered ? energy.power_w[stretch] : null,
    step: step >= 0 ? loss.step[step] : null,
    loss: step >= 0 ? loss.value[step] : null,
    smoothed: step >= 0 ? smooth[step] : null,
    evaluated: evaluated >= 0 ? { step: evaluation.step[evaluated], loss: evaluation.loss[evaluated] } : null,
    emissions: stretch >= 0 ? emissionsAt(energy, stretch, milliseconds) : null,
  };
}

function emissionsAt(energy, index, milliseconds) {
  const { start, end, emissions_gco2e: emissions } = energy;
  if (emitted(energy, index) === null) return null;
  const before = index ? emissions[index - 1] : 0;
  const share = Math.min(1, (milliseconds - start[index]) / Math.max(1, end[index] - start[index]));
  return before + share * (emissions[index] - before);
}

// `others`: the counterfactuals, [{label, start, end, gco2e}] in seconds.
export function readout(place) {
  place.textContent = HINT;
  return (at, series, smooth, others) => {
    if (at === null || series === null) {
      place.textContent = HINT;
      return;
    }
    const now = valuesAt(series, smooth, at);
    const parts = [[time(at * 1000), ""]];
    if (now.epoch !== null) parts.push([`epoch ${now.epoch}`, ""]);
    if (now.paused) parts.push(["paused", ""]);
    parts.push(["ρ ", number(now.asked), now.reached === null ? "" : `, reached ${number(now.reached)}`]);
    parts.push(["", now.power === null ? UNKNOWN : number(now.power, 3), " W"]);
    parts.push(["loss ", number(now.loss), now.step === null ? "" : ` at step ${now.step}, smoothed ${number(now.smoothed)}`]);
    if (now.evaluated) parts.push(["evaluated ", number(now.evaluated.loss), ` after step ${now.evaluated.step}`]);
    parts.push(["emitted ", number(now.emissions), " gCO2e"]);
    others.forEach(({ label, start, end, gco2e }, index) => {
      const share = Math.min(1, Math.max(0, (at - start) / Math.max(1, end - start)));
      parts.push([`${index ? "" : "estimated: "}${label} `, number(share * gco2e)]);
    });
    const spans = parts.map(([before, value, after = ""]) =>
      element("span", {}, before, ...(value ? [element("b", {}, value)] : []), after),
    );
    spans.splice(now.epoch === null ? 1 : 2, 0, intensityElement(now.intensity));
    place.replaceChildren(...spans.flatMap((span, index) => (index ? [" · ", span] : [span])));
  };
}
