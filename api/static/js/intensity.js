// The intensity bands, from green to brown: bounds from the page (`api/intensity_bands.py`), colours from the style sheet.

import { colour } from "./colours.js";
import { number } from "./format.js";

export const BANDS = JSON.parse(document.querySelector('meta[name="intensity-bands"]').content);

// Returns the band of an intensity in gCO2e/kWh: {number, start, end, name}.
export const bandOf = (gco2e) => BANDS.find((band) => band.end === null || gco2e < band.end);

export const bandColour = (band) => colour(`--band-${band.number}`);

// Returns an intensity as the macro `intensity` of `figures.html` renders it.
export function intensityElement(gco2e) {
  const element = document.createElement("span");
  if (gco2e === null || gco2e === undefined) {
    element.textContent = "–";
    return element;
  }
  const band = bandOf(gco2e);
  element.className = `intensity band-${band.number}`;
  const unit = Object.assign(document.createElement("span"), { className: "unit", textContent: " gCO2e/kWh" });
  const name = Object.assign(document.createElement("span"), { className: "band-name", textContent: band.name });
  element.append(number(gco2e), unit, " ", name);
  return element;
}

// Returns a uPlot plugin that paints intensity behind a chart. `segments()` returns [{from, to, gco2e}] in order, in the
// unit of x; a segment with null stays blank.
export function intensityBackground(segments) {
  const paint = (u) => {
    const { left, top, width, height } = u.bbox;
    u.ctx.save();
    u.ctx.beginPath();
    u.ctx.rect(left, top, width, height);
    u.ctx.clip();
    u.ctx.globalAlpha = 0.45;
    for (const { from, to, gco2e } of segments()) {
      if (gco2e === null || to < u.scales.x.min || from > u.scales.x.max) continue;
      const start = Math.max(left, u.valToPos(from, "x", true));
      const end = Math.min(left + width, u.valToPos(to, "x", true));
      u.ctx.fillStyle = bandColour(bandOf(gco2e));
      u.ctx.fillRect(start, top, Math.max(1, end - start), height);
    }
    u.ctx.restore();
  };
  return { hooks: { drawClear: [paint] } };
}

// Returns a legend of the bands `used`, as a list.
export function bandLegend(used = BANDS) {
  const list = Object.assign(document.createElement("ul"), { className: "band-legend" });
  list.setAttribute("aria-label", "Intensity in gCO2e/kWh");
  for (const band of used) {
    const item = document.createElement("li");
    const swatch = Object.assign(document.createElement("span"), { className: `swatch band-${band.number}` });
    swatch.setAttribute("aria-hidden", "true");
    item.append(swatch, `${band.name} (${band.end === null ? `from ${band.start}` : `${band.start}–${band.end}`})`);
    list.append(item);
  }
  return list;
}
