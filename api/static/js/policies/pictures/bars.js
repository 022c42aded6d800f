// Horizontal bars from the emissions of all the work, less each saving, to those that remain; where a version is edited,
// the stored one is shown above it, paler.

import { element } from "../../dom.js";
import { number, percent } from "../../format.js";

export function bars({ stored, edited, labels }) {
  const versions = [stored && ["stored", stored], edited && ["edited", edited]].filter(Boolean);
  const scale = 100 / Math.max(...versions.map(([, answer]) => largest(answer)));
  const ariaLabel = versions.map(([which, answer]) => `${labels[which]}: ${inWords(answer)}`).join(" ");
  const rows = ROWS.map((row) => rowOf(row, versions, scale));
  return element("div", { className: "bars", role: "img", ariaLabel }, ...rows, keyOf(versions, labels));
}

const ROWS = [
  { label: "ρ = 1, started at once", kind: "all", from: () => 0, to: (answer) => answer.baseline_g, text: (answer) => `${number(answer.baseline_g)} g` },
  { label: "− less work", kind: "less", from: (answer) => answer.constant_g, to: (answer) => answer.baseline_g, text: (answer) => saved(answer.less_work_saving) },
  { label: "− moved in time", kind: "moved", from: (answer) => answer.emissions_g, to: (answer) => answer.constant_g, text: (answer) => saved(answer.moved_in_time_saving) },
  { label: "what remains", kind: "rest", from: () => 0, to: (answer) => answer.emissions_g, text: (answer) => `${number(answer.emissions_g)} g`, marked: true },
];

const saved = (share) => (share < 0 ? `+${percent(-share)}` : share === 0 ? "0.0 %" : `−${percent(share)}`);
const largest = (answer) => Math.max(answer.baseline_g, answer.constant_g, answer.emissions_g, answer.spread?.emissions_g.p95 ?? 0);

function inWords(answer) {
  return (
    `${number(answer.baseline_g)} gCO2e at ρ = 1, started at once; ${percent(answer.less_work_saving)} saved by less work, ` +
    `${percent(answer.moved_in_time_saving)} by moving it in time; ${number(answer.emissions_g)} gCO2e remain.`
  );
}

function rowOf({ label, kind, from, to, text, marked }, versions, scale) {
  const tracks = span("bar-tracks");
  const figures = span("bar-figures");
  for (const [which, answer] of versions) {
    const [low, high] = [from(answer), to(answer)];
    // A negative saving is drawn the other way.
    const bar = span(`bar ${high < low ? "lost" : kind}${versions.length > 1 && which === "stored" ? " before" : ""}`);
    place(bar, Math.min(low, high) * scale, Math.abs(high - low) * scale);
    tracks.append(span("bar-track", bar, ...(marked ? marks(answer, scale) : [])));
    figures.append(element("span", {}, text(answer)));
  }
  return element("div", { className: "bar-row" }, span("bar-label", label), tracks, figures);
}

function marks(answer, scale) {
  const oracle = span("oracle");
  place(oracle, answer.oracle_g * scale, 0);
  if (!answer.spread) return [oracle];
  const spread = span("spread");
  const { p05, p95 } = answer.spread.emissions_g;
  place(spread, p05 * scale, (p95 - p05) * scale);
  return [oracle, spread];
}

function keyOf(versions, labels) {
  const key = element("p", { className: "bar-key reason" });
  if (versions.length > 1) key.append(`Above, paler: ${labels.stored}; below: ${labels.edited}. `);
  key.append(span("oracle-key"), " oracle: the same work in the cleanest hours before the deadline, with perfect foresight. ");
  if (versions[0][1].spread) key.append(span("spread-key"), " 5 % to 95 % of the starts.");
  return key;
}

const span = (className, ...children) => element("span", { className }, ...children);

function place(bar, left, width) {
  bar.style.left = `${left}%`;
  bar.style.width = `${width}%`;
}
