// The figures of a backtest, each with its format and the change between two versions.

import { number, percent, UNKNOWN } from "../../format.js";

const signed = (value, text) => (value > 0 ? `+${text}` : text.replace("-", "−"));
const gramChange = (of) => (stored, edited) => {
  const change = of(edited) - of(stored);
  return Math.abs(change) < 1e-9 * Math.abs(of(stored)) ? "0" : signed(change, number(change, 3));
};
const pointChange = (of) => (stored, edited) => {
  if (of(stored) === null || of(edited) === null) return UNKNOWN;
  const points = ((of(edited) - of(stored)) * 100).toFixed(1);
  return Number(points) === 0 ? "0" : `${signed(Number(points), points)} pp`;
};

const inGrams = (label, of, spread) => ({
  label: `${label}, gCO2e`,
  value: (answer) => number(of(answer)),
  spread: spread && ((answer) => `(${number(spread(answer).p05)} to ${number(spread(answer).p95)})`),
  change: gramChange(of),
});
const asShare = (label, of, spread) => ({
  label,
  value: (answer) => percent(of(answer)),
  spread: spread && ((answer) => `(${percent(spread(answer).p05)} to ${percent(spread(answer).p95)})`),
  change: pointChange(of),
});

export const FIGURES = [
  inGrams("All the work (ρ = 1), started at once", (answer) => answer.baseline_g),
  asShare("− saved by less work", (answer) => answer.less_work_saving, (answer) => answer.spread.less_work_saving),
  asShare("− saved by moving it in time", (answer) => answer.moved_in_time_saving, (answer) => answer.spread.moved_in_time_saving),
  inGrams("What remains under the policy", (answer) => answer.emissions_g, (answer) => answer.spread.emissions_g),
  inGrams("The same work in the cleanest hours (oracle)", (answer) => answer.oracle_g),
  asShare("Of the oracle's saving by time, reached", (answer) => answer.oracle_share),
  asShare("Work done, of all FLOPs", (answer) => answer.work_share),
  {
    label: "Epochs run",
    value: (answer) => number(answer.epochs_run, 3),
    change: gramChange((answer) => answer.epochs_run),
  },
  asShare("Ended on time, of the starts", (answer) => answer.on_time_share),
];
