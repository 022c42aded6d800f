// The selection map on the page of a job: a grid for each epoch with the tensors that it trained, the newest first.

import { announce } from "../announce.js";
import { get } from "../api.js";
import { dataTable } from "../data_table.js";
import { element, say as show } from "../dom.js";
import { layout, renumbered } from "./map_layout.js";
import { cellAt, geometry, neighbour, paint } from "./map_paint.js";
import { amount, cellWords, reachedWords, shareWords, tableText, unprobedWords } from "./map_words.js";

const EPOCHS = 8; // at once: of a model with 300 tensors that is 70 kB
const HINT = "Point at a cell, or move between cells with the arrow keys; Page Up and Page Down change the epoch.";
const NOTE =
  "Layers from the output at the top to the input, kinds of tensors side by side; a grid for each epoch, the newest first.";
const place = (name) => document.getElementById(`map-${name}`);
const path = document.getElementById("job-map").dataset.selection;
const narrow = matchMedia("(max-width: 40rem)");

let tensors = [];
let epochs = []; // newest first
let shape = null;
let figures = []; // of the epochs shown: {epoch, canvas, figure}
let marked = { epoch: null, index: null }; // the cell with the keyboard's focus
let table = null;
const columns = [];

const asked = (after) => get(`${path}?limit=${EPOCHS}${after === undefined ? "" : `&after=${after}`}`);

async function renew() {
  const answer = await asked();
  const oldest = answer.data.at(-1)?.number ?? Infinity;
  const kept = epochs.filter((epoch) => epoch.number < oldest);
  take(answer, (fresh) => [...fresh, ...kept], kept.length ? !place("older").hidden : answer.has_more);
}

async function older() {
  const answer = await asked(epochs.at(-1).number);
  const first = answer.data[0]?.number;
  take(answer, (fresh) => [...epochs, ...fresh], answer.has_more);
  figures.find(({ epoch }) => epoch.number === first)?.canvas.focus();
}

function take(answer, joined, hasMore) {
  const found = renumbered(tensors, answer);
  tensors = found.tensors;
  epochs = joined(found.epochs);
  place("older").hidden = !hasMore;
  if (!epochs.length) return;
  place("body").hidden = false;
  build();
}

// Returns [newest, oldest] epoch of each grid: one grid where all trained the same tensors without probing.
function groups() {
  const same = (epoch) => epoch.importance === null && String(epoch.trained) === String(epochs[0].trained);
  return epochs.length > 1 && epochs.every(same) ? [[epochs[0], epochs.at(-1)]] : epochs.map((epoch) => [epoch, epoch]);
}

function build() {
  const focused = document.activeElement?.dataset?.epoch;
  shape = geometry(layout(tensors), narrow.matches);
  const shown = groups();
  figures = shown.map(([epoch, first]) => figureOf(epoch, first));
  if (!figures.some(({ epoch }) => epoch.number === marked.epoch)) {
    marked = { epoch: figures[0].epoch.number, index: shape.cells[0].index };
  }
  place("grids").replaceChildren(...figures.map(({ figure }) => figure));
  draw();
  if (focused) figures.find(({ epoch }) => String(epoch.number) === focused)?.canvas.focus();
  place("note").textContent = unprobedEverywhere() ?? NOTE;
  fillTable();
}

function unprobedEverywhere() {
  const words = new Set(epochs.map((epoch) => unprobedWords(epoch, tensors)));
  const [only] = words;
  return words.size === 1 && only !== null ? `${only}.` : null;
}

function figureOf(epoch, first) {
  const title = first === epoch ? `Epoch ${epoch.number}` : `Epochs ${first.number}–${epoch.number}`;
  const what = `${title}: map of ${shareWords(epoch, tensors)} trained`;
  const ariaLabel = `${what}. Arrow keys move between tensors; the table below has the same data.`;
  const canvas = element("canvas", { tabIndex: -1, role: "application", ariaLabel });
  canvas.dataset.epoch = epoch.number;
  const texts = [reachedWords(epoch), shareWords(epoch, tensors), unprobedWords(epoch, tensors)].filter(Boolean);
  const caption = element("figcaption", {}, element("strong", {}, title), ...texts.map((text) => element("span", {}, text)));
  for (const type of ["pointermove", "pointerdown"]) {
    canvas.addEventListener(type, (event) => point(epoch, cellAt(canvas, shape, event)));
  }
  canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && point(epoch, undefined));
  canvas.addEventListener("keydown", (event) => walk(event, epoch));
  canvas.addEventListener("focus", () => mark(epoch, marked.index));
  canvas.addEventListener("blur", () => paint(canvas, shape, epoch, null));
  return { epoch, canvas, figure: element("figure", {}, canvas, caption) };
}

function draw() {
  for (const { epoch, canvas } of figures) {
    canvas.tabIndex = epoch.number === marked.epoch ? 0 : -1;
    paint(canvas, shape, epoch, canvas === document.activeElement ? marked.index : null);
  }
}

function say(words) {
  if (!words) {
    place("readout").textContent = HINT;
    return;
  }
  const [what, name, rest] = words;
  place("readout").replaceChildren(what, element("code", {}, name), rest);
}

function point(epoch, cell) {
  say(cell && cellWords(tensors[cell.index], epoch, cell.index));
}

const STEPS = {
  ArrowLeft: { columns: -1 },
  ArrowRight: { columns: 1 },
  ArrowUp: { rows: -1 },
  ArrowDown: { rows: 1 },
};

function walk(event, epoch) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const position = figures.findIndex((shown) => shown.epoch.number === epoch.number);
  const jumps = { PageUp: position - 1, PageDown: position + 1 };
  if (event.key in STEPS) {
    mark(epoch, neighbour(shape, marked.index, STEPS[event.key]).index);
  } else if (event.key === "Home" || event.key === "End") {
    mark(epoch, shape.cells.at(event.key === "Home" ? 0 : -1).index);
  } else if (event.key in jumps) {
    figures[jumps[event.key]]?.canvas.focus();
  } else {
    return;
  }
  event.preventDefault();
}

function mark(epoch, index) {
  marked = { epoch: epoch.number, index };
  draw();
  const words = cellWords(tensors[index], epoch, index);
  say(words);
  announce(words.join(""));
}

function fillTable() {
  columns.splice(
    0,
    columns.length,
    { label: "Tensor", text: (index) => tensors[index].name },
    { label: "Parameters", text: (index) => amount(tensors[index].parameters) },
    { label: "t_dw FLOPs", text: (index) => amount(tensors[index].t_dw_flops) },
    { label: "t_dy FLOPs", text: (index) => amount(tensors[index].t_dy_flops) },
    ...epochs.map((epoch) => ({ label: `Epoch ${epoch.number}`, text: (index) => tableText(epoch, index) })),
  );
  const rows = () => tensors.map((_, index) => index);
  table ??= dataTable(place("table"), "Tensors and their importance in each epoch", columns, rows);
  table.renew();
}

async function carefully(task) {
  try {
    await task();
    show(place("problem"), "");
  } catch (error) {
    show(place("problem"), `The selections could not be loaded: ${error.message}`);
  }
}

const epochsDone = () => Number(document.querySelector("[data-epochs-done]").dataset.epochsDone);

say(null);
place("older").addEventListener("click", () => carefully(older));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => shape && draw());
narrow.addEventListener("change", () => shape && build());
document.addEventListener("live", (event) => event.detail.includes("map-done") && carefully(renew));
if (epochsDone()) carefully(renew);
