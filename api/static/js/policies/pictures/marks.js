// Marks on the curve of ρ: the thresholds at which the gate pauses and resumes, and the intensity now.

import { colour } from "../../colours.js";

const RADIUS = 5;

// Returns a uPlot plugin; `curve()` returns the answer that is drawn, null for none.
export function curveMarks(curve) {
  function draw(u) {
    const drawn = curve();
    if (!drawn) return;
    u.ctx.save();
    u.ctx.strokeStyle = u.ctx.fillStyle = colour("--text");
    u.ctx.lineWidth = devicePixelRatio;
    u.ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    if (isShown(u, drawn.pause_above)) threshold(u, drawn.pause_above, "pauses above", 1);
    if (isShown(u, drawn.resume_below)) threshold(u, drawn.resume_below, "resumes", -1);
    if (drawn.now && drawn.now.rho !== null && isShown(u, drawn.now.gco2e_per_kwh)) dot(u, drawn.now);
    u.ctx.restore();
  }
  return { hooks: { draw: [draw] } };
}

const isShown = (u, at) => at !== null && at >= u.scales.x.min && at <= u.scales.x.max;

// `side`: 1 for words to the right of the line, -1 for the left.
function threshold(u, at, words, side) {
  const { top, height } = u.bbox;
  const x = u.valToPos(at, "x", true);
  u.ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  u.ctx.beginPath();
  u.ctx.moveTo(x, top);
  u.ctx.lineTo(x, top + height);
  u.ctx.stroke();
  u.ctx.textAlign = side > 0 ? "left" : "right";
  u.ctx.textBaseline = "alphabetic";
  u.ctx.fillText(words, x + 4 * side * devicePixelRatio, top + height - 6 * devicePixelRatio);
}

function dot(u, { gco2e_per_kwh: gco2e, rho }) {
  u.ctx.beginPath();
  u.ctx.arc(u.valToPos(gco2e, "x", true), u.valToPos(rho, "y", true), RADIUS * devicePixelRatio, 0, 2 * Math.PI);
  u.ctx.fill();
}
