// Shows an estimate: started now beside the best window, each figure with its bounds, and the basis of it all.

import { element, header } from "../dom.js";
import { UNKNOWN, duration, minute, number, percent, time } from "../format.js";
import { intensityElement } from "../intensity.js";

// Returns the elements that show an answer of POST /jobs/estimate.
export function comparison(found) {
  return [table(found), saving(found), ...notes(found), basis(found)];
}

const ROWS = [
  ["Starts", (run) => [minute(run.starts_at)]],
  ["Ends", (run) => [minute(run.ends_at)]],
  ["Meets the deadline", (run) => [run.meets_deadline ? "yes" : mark("no")], (run) => run.meets_deadline !== null],
  ["Computes for", (run) => [length(run.hours.expected), reason(`${length(run.hours.low)}–${length(run.hours.high)}`)]],
  ["ρ", (run) => [number(run.rho, 3)]],
  ["Energy", (run) => figure(run.energy_kwh, "kWh")],
  ["Intensity", (run) => [intensityElement(run.gco2e_per_kwh === null ? null : Number(run.gco2e_per_kwh.toPrecision(3)))]],
  ["Emissions", (run) => (run.emissions_gco2e ? figure(run.emissions_gco2e, "gCO2e") : [UNKNOWN])],
  ["Reason", (run) => [run.why || UNKNOWN]],
];

function table({ now, best, pace }) {
  const table = element("table");
  const caption = table.createCaption();
  caption.append("Times in UTC; below each figure its 90 % interval");
  if (pace.assumed) caption.append("; ", mark("assumed", "step"), " pace: nothing was measured on this device yet");
  table.createTHead().insertRow().append(element("td"), header("col", "Now"), header("col", "Best window"));
  const rows = table.createTBody();
  for (const [label, show, applies = () => true] of ROWS) {
    if (!applies(now)) continue;
    const row = rows.insertRow();
    row.append(header("row", label));
    row.className = { Emissions: "emissions", Reason: "why" }[label] ?? "";
    for (const run of [now, best]) row.insertCell().append(...show(run));
  }
  return table;
}

const length = (hours) => (hours * 3600 < 1 ? "under 1 s" : duration(hours * 3600));
const reason = (...parts) => element("div", { className: "reason" }, ...parts);
const mark = (text, className = "error") => element("strong", { className }, text);

function figure({ expected, low, high }, unit) {
  return [`${number(expected, 3)} ${unit}`, reason(`${number(low, 3)}–${number(high, 3)}`)];
}

function saving({ saving }) {
  const words = () => {
    if (saving === null) return ["No intensity is known, so emissions are not known either."];
    if (saving.share < 0.0005) return ["The best window saves nothing: starting now is as good."];
    return ["The best window saves ", element("strong", {}, percent(saving.share)), ` (${number(saving.gco2e, 3)} gCO2e).`];
  };
  return element("p", { className: "saving" }, ...words());
}

function basis(found) {
  const { place, pace, memory, queue, work, budget, pue } = found;
  const list = element("dl", { className: "basis" });
  const add = (name, ...parts) => list.append(element("dt", {}, name), element("dd", {}, ...parts));
  const workers = place.live_workers === 1 ? "one worker is alive" : `${place.live_workers} workers are alive`;
  const intensity = place.gco2e_per_kwh === null ? "its intensity is not known" : `now ${number(place.gco2e_per_kwh, 3)} gCO2e/kWh (${place.source})`;
  add("Place", `${place.zone}, ${place.reason}: ${intensity}; ${workers}`, reason(place.basis));
  const epoch = `${length(pace.epoch_hours.expected)} and ${number(pace.epoch_kwh.expected, 3)} kWh an epoch at ρ = 1`;
  add("Pace", pace.assumed ? mark("assumed", "step") : "", `${epoch}${pace.device ? ` on ${pace.device}` : ""}`, reason(pace.basis));
  const tokens = Math.round(work.tokens_per_epoch).toLocaleString("en-GB");
  add("Work", `${work.training_rows.toLocaleString("en-GB")} rows, ${tokens} tokens an epoch`, reason(work.basis));
  const gigabytes = (bytes) => (bytes === null ? UNKNOWN : number(bytes / 1e9, 3));
  const taken = memory.peak_bytes === null && memory.least_bytes !== null ? `at least ${gigabytes(memory.least_bytes)}` : gigabytes(memory.peak_bytes);
  add("Memory", `${taken} of ${gigabytes(memory.device_bytes)} GB`, reason(memory.basis));
  add("Queue", `${queue.running} running, ${queue.ahead} ahead; a worker is expected at ${time(queue.starts_at)}`);
  if (pue !== 1) add("Site", `draws ${number(pue)} kWh for each kWh of energy (PUE)`);
  if (budget) {
    const kept = { true: "can be kept", false: "cannot be kept", null: "may or may not be kept" }[String(budget.can_be_kept)];
    add("Budget", `${number(budget.given_gco2e)} gCO2e ${kept}`, reason(budget.basis));
  }
  return element("details", {}, element("summary", {}, "Basis of the estimate"), list);
}

function notes({ notes }) {
  return notes.length ? [element("ul", { className: "notes" }, ...notes.map((note) => element("li", {}, note)))] : [];
}
