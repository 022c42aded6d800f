// Paints stretches of time and hatching on a canvas.

import { colour } from "./colours.js";

// Calls `draw(left, width, stretch)` for every visible stretch {from, to}, clipped to the chart; in px of the canvas.
export function within(u, stretches, draw) {
  const { left, top, width, height } = u.bbox;
  clipped(u.ctx, [left, top, width, height], () => {
    for (const stretch of stretches) {
      if (stretch.to < u.scales.x.min || stretch.from > u.scales.x.max) continue;
      const start = Math.max(left, u.valToPos(stretch.from, "x", true));
      const end = Math.min(left + width, u.valToPos(stretch.to, "x", true));
      if (end > start) draw(start, end - start, stretch);
    }
  });
}

// Hatches the box [left, top, width, height] by lines `step` px apart.
export function hatch(context, box, { step, line, alpha, stroke = "--muted" }) {
  const [left, top, width, height] = box;
  clipped(context, box, () => {
    context.beginPath();
    for (let x = left - height; x < left + width; x += step) {
      context.moveTo(x, top + height);
      context.lineTo(x + height, top);
    }
    Object.assign(context, { globalAlpha: alpha, lineWidth: line, strokeStyle: colour(stroke) });
    context.stroke();
  });
}

function clipped(context, box, draw) {
  context.save();
  context.beginPath();
  context.rect(...box);
  context.clip();
  draw();
  context.restore();
}
