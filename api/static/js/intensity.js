// The intensity bands, from green to brown: bounds from the page (`api/intensity_bands.py`), colours from the style sheet.

import { within } from "./canvas.js";
import { colour } from "./colours.js";
import { element } from "./dom.js";
import { number } from "./format.js";

export const BANDS = JSON.parse(document.querySelector('meta[name="intensity-bands"]').content);

// Returns the band of an intensity in gCO2e/kWh: {number, start, end, name}.
export const bandOf = (gco2e) => BANDS.find((band) => band.end === null || gco2e < band.end);

const bandColour = (band) => colour(`--band-${band.number}`);

// Returns an intensity as the macro `intensity` of `figures.html` renders it.
export function intensityElement(gco2e) {
  if (gco2e === null || gco2e === undefined) return element("span", {}, "–");
  const band = bandOf(gco2e);
  const unit = element("span", { className: "unit" }, " gCO2e/kWh");
  const name = element("span", { className: "band-name" }, band.name);
  return element("span", { className: `intensity band-${band.number}` }, number(gco2e), unit, " ", name);
}

// Returns a uPlot plugin that paints intensity behind a chart. `segments()` returns [{from, to, gco2e}] in order, in the
// unit of x; a segment with null stays blank.
export function intensityBackground(segments) {
  const paint = (u) => {
    const known = segments().filter(({ gco2e }) => gco2e !== null);
    within(u, known, (left, width, { gco2e }) => {
      u.ctx.globalAlpha = 0.45;
      u.ctx.fillStyle = bandColour(bandOf(gco2e));
      u.ctx.fillRect(left, u.bbox.top, Math.max(1, width), u.bbox.height);
    });
  };
  return { hooks: { drawClear: [paint] } };
}

// Returns a legend of the bands `used`, as a list.
export function bandLegend(used = BANDS) {
  const items = used.map(({ number: of, name, start, end }) => {
    const swatch = element("span", { className: `swatch band-${of}`, ariaHidden: "true" });
    return element("li", {}, swatch, `${name} (${end === null ? `from ${start}` : `${start}–${end}`})`);
  });
  return element("ul", { className: "band-legend", ariaLabel: "Intensity in gCO2e/kWh" }, ...items);
}
