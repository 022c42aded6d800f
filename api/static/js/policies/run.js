// The fields of the run that a backtest simulates, kept for the tab.

import { valueOf } from "./inputs.js";

const KEY = "policy run";
const HOUR_MS = 3_600_000;

// `form` is null where no zone has readings: then only the curve is drawn, for the `usual` run.
export function simulatedRun(form, usual) {
  if (!form) return { read: () => usual, zone: () => null, onChange: () => {} };
  const inputs = [...form.querySelectorAll("input, select")];
  restore();

  function restore() {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
    for (const input of inputs) {
      const value = kept[input.id];
      if (value === undefined) continue;
      if (input.tagName !== "SELECT" || [...input.options].some((option) => option.value === value)) input.value = value;
    }
  }

  // Returns a simulation's body without its policy. The start is a full hour, so that equal runs are found in the cache.
  function read() {
    const body = {};
    for (const input of inputs) if (input.dataset.path) body[input.dataset.path] = valueOf(input);
    const days = Number(form.querySelector("#field-days").value);
    const hour = Math.floor(Date.now() / HOUR_MS) * HOUR_MS;
    return { ...body, from: new Date(hour - days * 24 * HOUR_MS).toISOString() };
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  return {
    read,
    zone: () => form.querySelector('[data-path="zone"]').value,
    onChange: (listener) =>
      form.addEventListener("input", () => {
        sessionStorage.setItem(KEY, JSON.stringify(Object.fromEntries(inputs.map((input) => [input.id, input.value]))));
        listener();
      }),
  };
}
