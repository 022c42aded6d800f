// Plugins that paint times without a worker, and the numbers of the epochs, on the panels.

import { colour } from "./colours.js";

const HATCH_PX = 6;
const TEXT_PX = 54; // least width of a stretch with a label

// Calls `draw(left, width, stretch)` for every visible stretch {from, to}, clipped to the panel; in px of the canvas.
function within(u, stretches, draw) {
  const { left, top, width, height } = u.bbox;
  u.ctx.save();
  u.ctx.beginPath();
  u.ctx.rect(left, top, width, height);
  u.ctx.clip();
  for (const stretch of stretches) {
    if (stretch.to < u.scales.x.min || stretch.from > u.scales.x.max) continue;
    const start = Math.max(left, u.valToPos(stretch.from, "x", true));
    const end = Math.min(left + width, u.valToPos(stretch.to, "x", true));
    if (end > start) draw(start, end - start, stretch);
  }
  u.ctx.restore();
}

function label(u, text, x, y) {
  u.ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  u.ctx.textAlign = "center";
  u.ctx.textBaseline = "top";
  u.ctx.fillStyle = colour("--muted");
  u.ctx.fillText(text, x, y);
}

function onPlainGround(u, text, x, y) {
  const px = devicePixelRatio;
  u.ctx.fillStyle = colour("--page");
  u.ctx.fillRect(x - 24 * px, y - 2 * px, 48 * px, 16 * px);
  label(u, text, x, y);
}

// Returns a plugin that hatches stretches; `words` labels those that are wide enough.
export function hatched(stretches, words) {
  const paint = (u) => {
    const { top, height } = u.bbox;
    const step = HATCH_PX * devicePixelRatio;
    within(u, stretches(), (left, width) => {
      u.ctx.save();
      u.ctx.beginPath();
      u.ctx.rect(left, top, width, height);
      u.ctx.clip();
      u.ctx.beginPath();
      for (let x = left - height; x < left + width; x += step) {
        u.ctx.moveTo(x, top + height);
        u.ctx.lineTo(x + height, top);
      }
      u.ctx.globalAlpha = 0.35;
      u.ctx.lineWidth = devicePixelRatio;
      u.ctx.strokeStyle = colour("--muted");
      u.ctx.stroke();
      u.ctx.restore();
      if (words && width > TEXT_PX * devicePixelRatio) {
        onPlainGround(u, words, left + width / 2, top + height / 2 - 7 * devicePixelRatio);
      }
    });
  };
  return { hooks: { drawClear: [paint] } };
}

// Returns a plugin that writes the number of each epoch {from, to, number} below its stretch where there is room.
export function numbered(epochs) {
  const paint = (u) => {
    const y = u.bbox.top + u.bbox.height - 14 * devicePixelRatio;
    within(u, epochs(), (left, width, { number }) => {
      const room = (String(number).length * 7 + 6) * devicePixelRatio;
      if (width > room) label(u, String(number), left + width / 2, y);
    });
  };
  return { hooks: { draw: [paint] } };
}
