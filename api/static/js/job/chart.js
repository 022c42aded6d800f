// The chart on the page of a job: ρ, power, loss and emissions over one time axis, with the grid's intensity behind them.
//
// The server thins the curves out; for a part that is zoomed into, finer ones are fetched.

import { get } from "../api.js";
import { element, say as show } from "../dom.js";
import { BANDS, bandLegend, bandOf } from "../intensity.js";
import { backgroundOf, columnsOf, emissionRows, lossRows, merged, pauses, powerRows, rhoRows } from "./chart_columns.js";
import { panels } from "./chart_panels.js";
import { readout } from "./chart_readout.js";
import { smoothed, windowOf } from "./chart_smoothing.js";
import { tables } from "./chart_tables.js";
import { poll } from "../poll.js";

const POINTS = 400; // of each curve: about one for two px of a wide window
// Time without a further zoom before it is written to the address and finer curves are fetched: browsers limit changes of
// the address, and some fetch the icon again with each.
const SETTLED_MS = 250;
const iso = (seconds) => new Date(seconds * 1000).toISOString();
const place = (name) => document.getElementById(`chart-${name}`);
const path = document.getElementById("job-chart").dataset.series;

let whole = null; // newest answer for the whole run
let fine = null; // newest answer for the part that is zoomed into
let drawn = { series: null, smooth: [], others: [], segments: [], pauses: [], epochs: [] };
let chart = null;
let say = null;
let renewTables = null;
let timer = null;
let pointed = null;

const counterfactuals = () =>
  [...document.querySelectorAll("[data-counterfactual]")].map(({ dataset }) => ({
    label: dataset.label,
    start: Date.parse(dataset.start) / 1000,
    end: Date.parse(dataset.end) / 1000,
    gco2e: Number(dataset.gco2e),
  }));

function draw() {
  const series = merged(whole, fine);
  const others = counterfactuals();
  const ends = [Date.parse(whole.start) / 1000, Date.parse(whole.end) / 1000];
  const extent = [
    Math.min(ends[0], ...others.map((other) => other.start)),
    Math.max(ends[0] + 1, ends[1], ...others.map((other) => other.end)),
  ];
  const window = windowOf(whole.loss.step);
  drawn = {
    series,
    others,
    smooth: smoothed(series.loss.step, series.loss.mean, window),
    segments: backgroundOf(series.energy, bandOf),
    pauses: pauses(series.energy),
    epochs: series.rho.epoch.map((number, index) => ({
      number,
      from: series.rho.start[index] / 1000,
      to: (series.rho.end[index] ?? whole.rho.start[index + 1] ?? ends[1] * 1000) / 1000,
    })),
  };
  place("smoothing").textContent = `smoothed (exponential, over ${window} steps)`;
  legend();
  place("empty").hidden = true;
  place("body").hidden = false;
  const first = chart === null;
  if (first) begin();
  const emissions = emissionRows(series.energy, others).map((row) => [...row, undefined, undefined, undefined].slice(0, 5));
  chart.setData({
    rho: columnsOf(rhoRows(series.rho, ends[1]), 2, extent),
    power: columnsOf(powerRows(series.energy), 1, extent),
    loss: columnsOf(lossRows(series, window, drawn.pauses), 3, extent),
    emissions: columnsOf(emissions, 4, extent),
  });
  if (first) chart.zoom(addressedZoom());
  if (first && chart.range()) zoomed(chart.range());
  renewTables();
  say(pointed, drawn.series, drawn.smooth, drawn.others);
}

function begin() {
  say = readout(place("readout"));
  chart = panels(() => drawn, { onZoom: zoomed, onCursor: point });
  renewTables = tables(place("tables"), () => drawn.series);
  place("in").addEventListener("click", () => scale(0.5));
  place("out").addEventListener("click", () => scale(2));
  place("earlier").addEventListener("click", () => move(-0.5));
  place("later").addEventListener("click", () => move(0.5));
  place("all").addEventListener("click", () => zoom(null));
  place("body").addEventListener("keydown", pointByKey, { capture: true });
  window.addEventListener("hashchange", () => zoom(addressedZoom()));
}

function legend() {
  const used = new Set(drawn.segments.filter((part) => part.gco2e !== null).map((part) => bandOf(part.gco2e)));
  const list = bandLegend(BANDS.filter((band) => used.has(band)));
  list.prepend(element("li", {}, "Background: gCO2e/kWh"));
  if (drawn.pauses.length) list.append(element("li", {}, element("span", { className: "swatch paused" }), "paused: no worker ran"));
  place("bands").replaceChildren(list);
}

// The cursor fires for every panel; the line is written once a frame.
function point(at) {
  const waits = point.next !== undefined;
  point.next = at;
  if (waits) return;
  requestAnimationFrame(() => {
    pointed = point.next;
    point.next = undefined;
    say(pointed, drawn.series, drawn.smooth, drawn.others);
  });
}

function pointByKey(event) {
  if (!event.shiftKey || !["ArrowLeft", "ArrowRight"].includes(event.key) || !event.target.matches(".chart")) return;
  event.preventDefault();
  event.stopPropagation();
  const [from, to] = chart.shownRange();
  const step = ((to - from) / 100) * (event.key === "ArrowLeft" ? -1 : 1);
  chart.point(Math.min(to, Math.max(from, (pointed ?? (from + to) / 2) + step)));
}

function scale(factor) {
  const [from, to] = chart.shownRange();
  const width = (to - from) * factor;
  const middle = (from + to) / 2;
  zoom([middle - width / 2, middle + width / 2]);
}

function move(share) {
  const [from, to] = chart.shownRange();
  zoom([from + share * (to - from), to + share * (to - from)]);
}

// Zooms by a button or the address; uPlot has already applied a zoom by mouse or key.
function zoom(range) {
  chart.zoom(range);
  zoomed(chart.range());
}

function zoomed(range) {
  for (const name of ["out", "all", "earlier", "later"]) place(name).disabled = range === null;
  clearTimeout(timer);
  timer = setTimeout(() => {
    keepZoom(range);
    refine();
  }, SETTLED_MS);
}

// Returns the zoom in the page's address, [from, to] in seconds since 1970; null where the hash has no valid times.
function addressedZoom() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const range = ["from", "to"].map((name) => Date.parse(asked.get(name)) / 1000);
  return range.every(Number.isFinite) && range[0] < range[1] ? range : null;
}

// Writes a range into the hash, so that it survives a reload and can be shared, null to remove it; leaves a hash for another purpose unchanged.
function keepZoom(range) {
  if (!range && !addressedZoom()) return;
  const hash = range ? `#from=${iso(range[0])}&to=${iso(range[1])}` : "";
  history.replaceState(history.state, "", location.pathname + location.search + hash);
}

async function refine() {
  const range = chart.range();
  if (range === null) {
    fine = null;
    return;
  }
  try {
    if (await loadFine(range)) draw();
    show(place("problem"), "");
  } catch (error) {
    show(place("problem"), `No finer curves than these: ${error.message}`);
  }
}

async function loadFine(range) {
  const [start, end] = range.map(iso);
  const series = await get(`${path}?${new URLSearchParams({ points: POINTS, start, end })}`);
  const current = chart.range();
  if (current === null || current[0] !== range[0] || current[1] !== range[1]) return false;
  fine = series;
  return true;
}

async function load() {
  whole = await get(`${path}?points=${POINTS}`);
  if (chart?.range()) await loadFine(chart.range());
  if (whole.start !== null) draw();
  if (!document.body.dataset.pollSeconds) return null;
  // Polls about once in two px of the chart's width.
  const length = whole.start === null ? 0 : Date.parse(whole.end) - Date.parse(whole.start);
  return Math.min(60_000, Math.max(3_000, length / 500));
}

const again = poll(load, 0);
document.addEventListener("live", (event) => {
  if (event.detail.includes("chart-counterfactuals") || !document.body.dataset.pollSeconds || whole?.start === null) again();
});
