// The four panels of a job's chart, one below the other; they share time axis, cursor and zoom.

import { chart } from "../chart.js";
import { colour } from "../colours.js";
import { number } from "../format.js";
import { intensityBackground } from "../intensity.js";
import { hatched, numbered } from "./chart_paint.js";

const AXIS_PX = 52; // the same in all panels, so that their times are aligned
const SYNC = "job-chart";
const DAY = "\n{D} {MMM} {YYYY}";
const TIMES = [
  [86_400, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", DAY, null, DAY, null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", DAY, null, DAY, null, null, null, 1],
  [0.001, "{HH}:{mm}:{ss}", DAY, null, DAY, null, null, null, 1],
];

const figures = { size: AXIS_PX, values: (_, splits) => splits.map((value) => number(value)) };
const bare = { size: 6, values: (_, splits) => splits.map(() => ""), ticks: { show: false } };
const dot = { show: true, size: 8, fill: () => colour("--red") };
const fromZero = (_, min, max) => [0, max > 0 ? max * 1.1 : 1];
const line = (stroke, more = {}) => ({ stroke, width: 2, points: { show: false }, ...more });
const DASHES = [[8, 4], [4, 4], [2, 3]]; // of the counterfactuals, which differ not by colour alone

// `shown()` returns {segments, pauses, epochs}; `onZoom` is called with [from, to] in seconds or null, `onCursor` with a
// time or null. Returns {setData({rho, power, loss, emissions}), zoom(range), range(), point(time), shownRange()}.
export function panels(shown, { onZoom, onCursor }) {
  const narrow = matchMedia("(max-width: 40rem)").matches;
  const space = narrow ? 70 : 90;
  const behind = (words) => [intensityBackground(() => shown().segments), hatched(() => shown().pauses, words)];
  const pointed = { hooks: { setCursor: [(u) => onCursor(u.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : null)] } };

  const make = (name, label, heights, options) =>
    chart(document.getElementById(`chart-${name}`), {
      label,
      height: heights[narrow ? 1 : 0],
      sync: SYNC,
      onZoom: (range) => {
        for (const other of Object.values(all)) if (other !== all[name]) other.zoom(range);
        onZoom(range);
      },
      ...options,
      axes: [options.last ? { values: TIMES, size: 42, space } : { ...bare, space }, { ...figures, ...options.axis }],
      series: [{}, ...options.series],
      scales: { y: { range: options.range } },
      plugins: [...behind(options.words), pointed, ...(options.plugins ?? [])],
    });

  const all = {
    rho: make("rho", "ρ of each epoch over time", [96, 80], {
      words: "paused",
      series: [line("--text"), line("--blue", { dash: [6, 3] })],
      range: () => [0, 1.08],
      axis: { splits: () => [0, 0.5, 1] },
      plugins: [numbered(() => shown().epochs)],
    }),
    power: make("power", "Power in watts over time", [96, 76], {
      series: [line("--text", { width: 1.5 })],
      range: fromZero,
      axis: { space: 25 },
    }),
    loss: make("loss", "Training and evaluation loss over time", [170, 120], {
      series: [
        line("--raw", { width: 1 }),
        line("--blue"),
        line("--red", { width: 1, dash: [2, 3], spanGaps: true, points: dot }),
      ],
    }),
    emissions: make("emissions", "Emissions so far in gCO2e over time", [190, 140], {
      last: true,
      series: [
        line("--text"),
        ...["--red", "--amber", "--green"].map((stroke, index) => line(stroke, { dash: DASHES[index] })),
      ],
    }),
  };

  return {
    setData(columns) {
      for (const [name, panel] of Object.entries(all)) panel.setData(columns[name]);
    },
    zoom(range) {
      for (const panel of Object.values(all)) panel.zoom(range);
    },
    range: () => all.rho.range(),
    // Points the cursor of all panels at a time, as the mouse does.
    point(time) {
      const u = all.rho.u();
      u.setCursor({ left: u.valToPos(time, "x"), top: 10 }, true, true);
    },
    shownRange: () => [all.rho.u().scales.x.min, all.rho.u().scales.x.max],
  };
}
