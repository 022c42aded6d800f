// Pure functions that lay out the map's cells from an answer of `/jobs/{id}/selection`.

const WORDS = {
  input_layernorm: "norm",
  post_attention_layernorm: "norm 2",
  self_attn_layer_norm: "norm",
  encoder_attn_layer_norm: "× norm",
  final_layer_norm: "norm 2",
  layer_norm: "norm",
  embed_tokens: "embed",
  embed_positions: "positions",
  lm_head: "head",
  relative_attention_bias: "rel.",
  bias: "b",
};
const CROSSES = ["encoder_attn", "EncDecAttention"]; // attention from one stack to the other
const LONGEST = 9;
const UNPROBED = 0.7; // shade of tensors that were trained without being probed

// Returns a short label of a kind of tensor: "q" for "self_attn.q_proj", "q b" for its bias.
export function shortLabel(kind) {
  const parts = kind.split(".");
  const cross = parts.some((part) => CROSSES.includes(part)) ? "×" : "";
  const ending = parts.length > 1 && (parts.at(-1) === "bias" || parts.at(-1).startsWith("lora_")) ? parts.pop() : null;
  const main = parts.at(-1);
  const word = WORDS[main] ?? main.replace(/_proj$/, "").replace(/_layer_?norm$/, " norm").replace(/_/g, " ");
  const suffix = ending ? ` ${WORDS[ending] ?? ending.replace("lora_", "")}` : "";
  const text = cross + word + suffix;
  return text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text;
}

// Returns unique labels of kinds; equal ones get a number.
export function labelsOf(kinds) {
  const seen = new Map();
  return kinds.map((kind) => {
    const label = shortLabel(kind);
    const count = (seen.get(label) ?? 0) + 1;
    seen.set(label, count);
    return count === 1 ? label : `${label} ${count}`;
  });
}

// Returns sections from the model's output to its input, one for each stack: {stack, columns: [kind], labels, rows}. A row
// is {label, cells: [tensor index or null for each column]} or, for a tensor outside the blocks, {label, whole: index}.
export function layout(tensors) {
  const sections = [];
  const rows = new Map();
  const sectionOf = (stack) => {
    let section = sections.findLast((candidate) => candidate.stack === stack);
    if (!section) {
      section = { stack, columns: [], labels: [], rows: [] };
      sections.push(section);
    }
    return section;
  };
  tensors.forEach(({ stack, layer, kind }, index) => {
    const section = sectionOf(stack);
    if (layer === null) {
      section.rows.push({ label: shortLabel(kind), whole: index });
      return;
    }
    if (!section.columns.includes(kind)) section.columns.push(kind);
    const key = `${stack} ${layer}`;
    if (!rows.has(key)) {
      rows.set(key, { label: String(layer), kinds: new Map() });
      section.rows.push(rows.get(key));
    }
    rows.get(key).kinds.set(kind, index);
  });
  for (const section of sections) {
    section.columns = inOrder(section.columns);
    section.labels = labelsOf(section.columns);
    for (const row of section.rows) {
      if (row.kinds) row.cells = section.columns.map((kind) => row.kinds.get(kind) ?? null);
    }
  }
  return sections;
}

const ORDER = ["q", "k", "v", "o", "out", "gate", "up", "fc1", "wi", "wi 0", "wi 1", "down", "fc2", "wo"];

// Sorts kinds: attention, cross-attention, unknown ones in a block's order of computation (the reverse of the tensors'),
// and last biases and norms, which cost little.
function inOrder(kinds) {
  const rank = (kind) => {
    const label = shortLabel(kind);
    const main = ORDER.indexOf(label.replace(/^×/, "").replace(/ [bAB]$/, ""));
    const late = 100 * label.includes("norm") + 50 * / b$/.test(label) + 20 * label.startsWith("×");
    return late + (main < 0 ? ORDER.length : main);
  };
  return [...kinds].reverse().sort((a, b) => rank(a) - rank(b));
}

// Returns all tensors, and an answer's epochs with their indices: without stored tensors, each answer numbers only those
// that it names.
export function renumbered(tensors, answer) {
  const known = new Map(tensors.map(({ name }, index) => [name, index]));
  const all = [...tensors];
  const numbers = answer.tensors.map((tensor) => {
    if (!known.has(tensor.name)) known.set(tensor.name, all.push(tensor) - 1);
    return known.get(tensor.name);
  });
  const epochs = answer.data.map((epoch) => {
    if (epoch.importance === null) return { ...epoch, trained: epoch.trained.map((index) => numbers[index]) };
    const importance = Array.from({ length: all.length }, () => null);
    epoch.importance.forEach((value, index) => (importance[numbers[index]] = value));
    return { ...epoch, trained: epoch.trained.map((index) => numbers[index]), importance };
  });
  return { tensors: all, epochs: epochs.map(prepared) };
}

// Returns the state of a tensor in an epoch: {state: "trained" | "probed" | "unreached" | "unknown", shade in [0, 1],
// importance}. Shades cover three powers of ten below the epoch's largest importance.
export function cellState(epoch, index) {
  const trained = epoch.trainedSet.has(index);
  const importance = epoch.importance?.[index] ?? null;
  const left = epoch.importance === null ? "unknown" : importance === null ? "unreached" : "probed";
  const state = trained ? "trained" : left;
  if (epoch.importance === null) return { state, shade: trained ? UNPROBED : 0, importance };
  if (importance === null || epoch.largest <= 0) return { state, shade: 0, importance };
  const shade = importance <= 0 ? 0 : Math.max(0, 1 + Math.log10(importance / epoch.largest) / 3);
  return { state, shade, importance };
}

// Returns an epoch with the values that each of its cells looks up.
export const prepared = (epoch) => ({
  ...epoch,
  trainedSet: new Set(epoch.trained),
  largest: Math.max(0, ...(epoch.importance ?? []).filter((value) => value !== null)),
});
