// Plugins that paint times without a worker, and the numbers of the epochs, on the panels.

import { hatch, within } from "../canvas.js";
import { colour } from "../colours.js";

const TEXT_PX = 54; // least width of a stretch with a label

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
    within(u, stretches(), (left, width) => {
      hatch(u.ctx, [left, top, width, height], { step: 6 * devicePixelRatio, line: devicePixelRatio, alpha: 0.35 });
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
