// Draws ρ over the intensity: the stored version, and beside it the edited one.

import { chart } from "./chart.js";
import { dataTable } from "./data_table.js";
import { number } from "./format.js";
import { BANDS, bandLegend, bandOf, intensityBackground, intensityElement } from "./intensity.js";

const EVERY = 50; // gCO2e/kWh between the rows of the table

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// `labels()` gives the names of the stored and of the edited version.
export function policyCurve(labels) {
  const place = document.getElementById("curve");
  let shown = { stored: null, edited: null };

  const plot = chart(place, {
    label: "ρ over the carbon intensity in gCO2e/kWh",
    height: 240,
    time: false,
    scales: { y: { range: [0, 1.05] } },
    axes: [{ label: "gCO2e/kWh", labelSize: 20, labelFont: "12px system-ui, sans-serif" }, { size: 42 }],
    series: [
      { label: "gCO2e/kWh" },
      { label: "stored", stroke: "--text", dash: [5, 4], width: 1.5, points: { show: false }, value: (_, rho) => number(rho) },
      { label: "edited", stroke: "--text", width: 2.5, points: { show: false }, value: (_, rho) => number(rho) },
    ],
    plugins: [intensityBackground(() => BANDS.map(({ start, end }) => ({ from: start, to: end ?? Infinity, gco2e: start }))), { hooks: { draw: [drawMarks] } }],
  });
  document.getElementById("curve-legend").append(bandLegend());
  const table = dataTable(document.getElementById("curve-table"), "ρ over the intensity", [
    { label: "gCO2e/kWh", text: ({ gco2e }) => `${number(gco2e)} (${bandOf(gco2e).name})` },
    { label: "ρ, stored", text: ({ stored }) => number(stored) },
    { label: "ρ, edited", text: ({ edited }) => number(edited) },
  ], rows);

  function rows() {
    const [x, stored, edited] = columns();
    return x.map((gco2e, index) => ({ gco2e, stored: stored[index], edited: edited[index] })).filter(({ gco2e }) => gco2e % EVERY === 0);
  }

  function columns() {
    const part = (curve) => [curve?.gco2e_per_kwh ?? [], curve?.rho ?? []];
    return uPlot.join([part(shown.stored), part(shown.edited)]);
  }

  // Where the gate pauses and goes on, and where the grid stands now.
  function drawMarks(u) {
    const curve = shown.edited ?? shown.stored;
    if (!curve) return;
    const { ctx } = u;
    const { left, top, width, height } = u.bbox;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour("--text");
    ctx.lineWidth = devicePixelRatio;
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    for (const [at, text] of [[curve.pause_above, "pauses"], [curve.resume_below, "goes on"]]) {
      if (at === null || at > u.scales.x.max || at < u.scales.x.min) continue;
      const x = u.valToPos(at, "x", true);
      ctx.setLineDash([3, 3]);
      ctx.beginPath();
      ctx.moveTo(x, top);
      ctx.lineTo(x, top + height);
      ctx.stroke();
      ctx.textAlign = text === "pauses" ? "left" : "right";
      ctx.fillText(text, x + (text === "pauses" ? 4 : -4) * devicePixelRatio, top + height - 6 * devicePixelRatio);
    }
    const { now } = curve;
    if (now && now.rho !== null) {
      const x = u.valToPos(now.gco2e_per_kwh, "x", true);
      if (x >= left && x <= left + width) {
        ctx.setLineDash([]);
        ctx.beginPath();
        ctx.arc(x, u.valToPos(now.rho, "y", true), 5 * devicePixelRatio, 0, 2 * Math.PI);
        ctx.fill();
      }
    }
    ctx.restore();
  }

  function tellNow(curve, zone) {
    const place = document.getElementById("curve-now");
    place.replaceChildren();
    if (!curve.now) return;
    const { now } = curve;
    const outcome = now.rho === null ? "the run would end" : `ρ ${number(now.rho)}`;
    place.append(`● Now in ${zone}: `, intensityElement(now.gco2e_per_kwh), ` → ${outcome}`);
  }

  return {
    // `stored` and `edited` are answers, or null where there is no such version.
    show({ stored, edited, zone }) {
      shown = { stored, edited };
      const u = plot.u();
      const names = labels();
      ["stored", "edited"].forEach((which, index) => {
        u.series[index + 1].show = shown[which] !== null;
        const label = u.root.querySelectorAll(".u-legend .u-label")[index + 1];
        if (label) label.textContent = `ρ, ${names[which]}`;
        label?.closest(".u-series").classList.toggle("u-off", shown[which] === null);
      });
      plot.setData(columns());
      const curve = edited ?? stored;
      document.getElementById("curve-basis").textContent = `Drawn: ${curve.basis}. Without an intensity: ${curve.without_intensity}.`;
      tellNow(curve, zone);
      table.renew();
    },
  };
}
