// Texts of the map: of a cell, below each grid, of a job that trains everything, and in the table.

import { number, percent } from "../format.js";
import { cellState } from "./map_layout.js";

const SI = ["", "k", "M", "G", "T", "P"];

// Returns a count with a prefix: "90 M".
export function amount(value) {
  if (value === null) return "unknown";
  let left = value;
  let index = 0;
  for (; left >= 1000 && index < SI.length - 1; index += 1) left /= 1000;
  return `${number(left, 3)} ${SI[index]}`;
}

const STATES = {
  trained: "trained",
  probed: "not trained",
  unreached: "not trained: the budget could not reach it",
  unknown: "not trained",
};

// Returns [what, name, rest] of a cell; the name is set as code.
export function cellWords(tensor, epoch, index) {
  const { state, importance } = cellState(epoch, index);
  const probed = epoch.importance === null ? "importance not probed" : `importance ${number(importance)}`;
  return [
    `Epoch ${epoch.number} (ρ ${number(epoch.rho_asked)}): `,
    tensor.name,
    ` · ${STATES[state]} · ${probed} · t_dw ${flops(tensor.t_dw_flops)} · t_dy ${flops(tensor.t_dy_flops)}` +
      ` · ${amount(tensor.parameters).trim()} parameters`,
  ];
}

const flops = (value) => (value === null ? "unknown" : `${amount(value)}FLOPs a step`);

export const reachedWords = (epoch) =>
  `ρ ${number(epoch.rho_asked)}${epoch.rho_reached === null ? "" : `, reached ${number(epoch.rho_reached)}`}`;

export function shareWords(epoch, tensors) {
  const share = percent(tensors.length ? epoch.trained.length / tensors.length : null).replace(" ", "\u00a0");
  return `${epoch.trained.length} of ${tensors.length} tensors (${share})`;
}

// Returns why nothing was probed in an epoch; null where something was.
export function unprobedWords(epoch, tensors) {
  if (epoch.importance !== null) return null;
  if (epoch.trained.length === tensors.length) return "ρ = 1: all tensors trained, nothing was probed";
  return "The method always trains the same tensors, nothing was probed";
}

export function tableText(epoch, index) {
  const { state, importance } = cellState(epoch, index);
  if (state === "trained") return importance === null ? "trained" : `trained (${number(importance)})`;
  if (state === "unreached") return "not reached";
  return importance === null ? "not trained" : `not trained (${number(importance)})`;
}
