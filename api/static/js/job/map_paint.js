// Paints an epoch's grid on a canvas, and finds the cell at a position in it.

import { hatch } from "../canvas.js";
import { colour } from "../colours.js";
import { cellState } from "./map_layout.js";

const FONT = "10px system-ui, sans-serif";
const ROW_LABEL_PX = 38;
const GAP_PX = 6; // between stacks
const TALLEST_PX = 300; // height of a grid's rows, where their number allows it

// Returns {width, height, cells: [{index, x, y, width, height, row, column}], texts: [{text, x, y, upright}]} in CSS px.
export function geometry(sections, narrow) {
  const rows = sections.reduce((sum, section) => sum + section.rows.length, 0);
  const columns = Math.max(1, ...sections.map((section) => section.columns.length));
  const cellWidth = Math.max(7, Math.min(narrow ? 12 : 18, Math.floor((narrow ? 310 : 480) / columns)));
  const cellHeight = Math.max(5, Math.min(14, Math.floor(TALLEST_PX / Math.max(1, rows))));
  const width = ROW_LABEL_PX + columns * cellWidth + 1;
  const cells = [];
  const texts = [];
  let y = 0;
  let row = 0;
  sections.forEach((section, number) => {
    if (number) y += GAP_PX;
    if (section.stack) {
      y += 12;
      texts.push({ text: section.stack, x: 0, y: y - 3, align: "left" });
    }
    if (section.columns.length) {
      y += 8 + 6 * Math.max(...section.labels.map((label) => label.length));
      section.labels.forEach((text, column) => {
        texts.push({ text, x: ROW_LABEL_PX + (column + 0.5) * cellWidth, y: y - 4, upright: true });
      });
    }
    let labelled = -Infinity;
    for (const line of section.rows) {
      if (y - labelled >= 10 || line.whole !== undefined) {
        texts.push({ text: line.label, x: ROW_LABEL_PX - 4, y: y + cellHeight / 2 + 3.5, align: "right" });
        labelled = y;
      }
      const place = { y, height: cellHeight, row };
      if (line.whole !== undefined) {
        cells.push({ ...place, index: line.whole, x: ROW_LABEL_PX, width: columns * cellWidth, column: 0, columns });
        y += Math.max(0, 11 - cellHeight);
      } else {
        line.cells.forEach((index, column) => {
          if (index === null) return;
          cells.push({ ...place, index, x: ROW_LABEL_PX + column * cellWidth, width: cellWidth, column, columns: 1 });
        });
      }
      y += cellHeight;
      row += 1;
    }
  });
  return { width, height: y + 1, cells, texts };
}

export function paint(canvas, shape, epoch, marked) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(shape.width * ratio);
  canvas.height = Math.round(shape.height * ratio);
  canvas.style.width = `${shape.width}px`;
  canvas.style.aspectRatio = `${shape.width} / ${shape.height}`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  write(context, shape.texts);
  for (const cell of shape.cells) fill(context, cell, cellState(epoch, cell.index));
  const cell = shape.cells.find(({ index }) => index === marked);
  if (cell) {
    context.strokeStyle = colour("--blue");
    context.lineWidth = 2;
    context.strokeRect(cell.x, cell.y, cell.width, cell.height);
  }
}

function write(context, texts) {
  context.font = FONT;
  context.fillStyle = colour("--muted");
  for (const { text, x, y, upright, align } of texts) {
    context.save();
    context.translate(x, y);
    if (upright) {
      context.rotate(-Math.PI / 2);
      context.textBaseline = "middle";
    } else {
      context.textAlign = align;
    }
    context.fillText(text, 0, 0);
    context.restore();
  }
}

function fill(context, { x, y, width, height }, { state, shade }) {
  const [left, top, wide, high] = [x + 0.5, y + 0.5, width - 1, height - 1];
  if (state === "trained") {
    context.globalAlpha = 0.15 + 0.85 * shade;
    context.fillStyle = colour("--trained");
    context.fillRect(left, top, wide, high);
    context.globalAlpha = 1;
    context.strokeStyle = colour("--trained-edge");
    context.lineWidth = 1;
    context.strokeRect(left + 0.5, top + 0.5, wide - 1, high - 1);
  } else if (state === "unreached") {
    hatch(context, [left, top, wide, high], { step: 4, line: 0.7, alpha: 0.5, stroke: "--cell" });
  } else {
    context.globalAlpha = 0.08 + 0.22 * shade;
    context.fillStyle = colour("--cell");
    context.fillRect(left, top, wide, high);
    context.globalAlpha = 1;
  }
}

// Returns the cell at the pointer, undefined where there is none. The canvas may be shown scaled down.
export function cellAt(canvas, shape, event) {
  const box = canvas.getBoundingClientRect();
  const scale = shape.width / box.width;
  const x = (event.clientX - box.left) * scale;
  const y = (event.clientY - box.top) * scale;
  return shape.cells.find((cell) => x >= cell.x && x < cell.x + cell.width && y >= cell.y && y < cell.y + cell.height);
}

// Returns the nearest cell in a direction from a tensor's cell; that cell itself where there is none.
export function neighbour(shape, index, { rows = 0, columns = 0 }) {
  const from = shape.cells.find((cell) => cell.index === index) ?? shape.cells[0];
  const middle = (cell) => cell.x + cell.width / 2;
  let candidates;
  if (columns) candidates = shape.cells.filter((cell) => cell.row === from.row && (cell.x - from.x) * columns > 0);
  else candidates = shape.cells.filter((cell) => (cell.row - from.row) * rows > 0);
  const distance = (cell) => Math.abs(cell.row - from.row) * 10_000 + Math.abs(middle(cell) - middle(from));
  return candidates.reduce((best, cell) => (best === null || distance(cell) < distance(best) ? cell : best), null) ?? from;
}
