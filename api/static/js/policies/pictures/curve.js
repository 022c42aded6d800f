// Draws ρ over the intensity, for the stored and the edited version.

import { chart } from "../../chart.js";
import { dataTable } from "../../data_table.js";
import { element } from "../../dom.js";
import { number } from "../../format.js";
import { BANDS, bandLegend, bandOf, intensityBackground, intensityElement } from "../../intensity.js";
import { curveMarks } from "./marks.js";

const EVERY = 50; // gCO2e/kWh between the rows of the table
const DASH = [6, 5];
const SEGMENTS = BANDS.map(({ start, end }) => ({ from: start, to: end ?? Infinity, gco2e: start }));

// `labels()` returns the names of the stored and the edited version.
export function policyCurve(labels) {
  const readout = document.getElementById("curve-readout");
  const shown = { stored: null, edited: null };
  const last = () => shown.edited ?? shown.stored;

  const series = [
    {},
    { stroke: "--text", width: 2, points: { show: false } },
    { stroke: "--text", width: 2.5, points: { show: false } },
  ];
  const plot = chart(document.getElementById("curve"), {
    label: "ρ over the carbon intensity in gCO2e/kWh",
    height: 230,
    time: false,
    scales: { y: { range: [0, 1.05] } },
    axes: [{ label: "gCO2e/kWh", labelSize: 18, labelFont: "12px system-ui, sans-serif", size: 30 }, { size: 42 }],
    series,
    plugins: [intensityBackground(() => SEGMENTS), curveMarks(last), { hooks: { setCursor: [tellCursor] } }],
  });
  document.getElementById("curve-legend").append(bandLegend());
  const table = dataTable(
    document.getElementById("curve-table"),
    "ρ over the intensity",
    [
      { label: "gCO2e/kWh", text: ({ gco2e }) => `${number(gco2e)} (${bandOf(gco2e).name})` },
      { label: "ρ, stored", text: ({ stored }) => number(stored) },
      { label: "ρ, edited", text: ({ edited }) => number(edited) },
    ],
    rows,
  );

  function rows() {
    const [x, stored, edited] = columns();
    const all = x.map((gco2e, index) => ({ gco2e, stored: stored[index], edited: edited[index] }));
    return all.filter(({ gco2e }) => gco2e % EVERY === 0);
  }

  function columns() {
    const part = (curve) => [curve?.gco2e_per_kwh ?? [], curve?.rho ?? []];
    return uPlot.join([part(shown.stored), part(shown.edited)]);
  }

  // Shows the names of the lines, with their values at the pointer.
  function tellCursor(u) {
    const at = u?.cursor.idx ?? null;
    const names = labels();
    const lines = [shown.stored && ["stored", 1], shown.edited && ["edited", 2]].filter(Boolean);
    readout.replaceChildren(
      ...lines.map(([which, index]) => {
        const dashed = which === "stored" && shown.edited;
        const value = at === null ? "" : `: ρ ${number(u.data[index][at])}`;
        return element("span", { className: `line ${dashed ? "dashed" : ""}` }, `${names[which]}${value}`);
      }),
      at === null ? "" : `at ${number(u.data[0][at])} gCO2e/kWh`,
    );
  }

  function tellNow(curve, zone) {
    const place = document.getElementById("curve-now");
    place.replaceChildren();
    if (!curve.now) return;
    const { now } = curve;
    const outcome = now.rho === null ? "the run would end" : `ρ ${number(now.rho)}`;
    place.append(`● now in ${zone}: `, intensityElement(now.gco2e_per_kwh), ` → ${outcome}`);
  }

  return {
    // `stored` and `edited` are answers, or null where there is no such version.
    show({ stored, edited, zone }) {
      Object.assign(shown, { stored, edited });
      // The stored line is dashed beside an edited one; in the options too, for when the chart is built again.
      for (const line of [series[1], plot.u().series[1]]) line.dash = edited ? DASH : [];
      plot.setData(columns());
      document.getElementById("curve-basis").textContent =
        `${last().basis}. With ${last().without_intensity}.`;
      tellCursor(null);
      tellNow(last(), zone);
      table.renew();
    },
  };
}
