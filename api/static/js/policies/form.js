// The form of a policy: writes its inputs into the draft, and shows the draft's values.

import { show, valueOf } from "./inputs.js";
import { read, written } from "./paths.js";
import { policySteps } from "./steps.js";

const COMMON = ["gate", "smoothing", "on_missing"];

export function policyForm(form, draft) {
  const examples = JSON.parse(form.dataset.examples);
  const lastOfKind = {}; // restores the fields of a kind that is chosen again
  const inputs = [...form.querySelectorAll("[data-path]")].filter((input) => !input.closest("template"));
  policySteps(form, draft);

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", ({ target }) => {
    if (target.name === "kind") draft.change(ofKind(target.value), "kind");
    else if (target.dataset.path && !target.closest("#steps")) draft.change(entered(target), "form");
  });

  function entered(input) {
    const path = input.dataset.path;
    if (path === "on_missing") return written(draft.body, path, input.value === "rho" ? {} : input.value);
    const absent = input.closest("[data-absent]");
    const held = absent ? withoutNulls(JSON.parse(absent.dataset.absent)) : {};
    return written(draft.body, path, valueOf(input), held);
  }

  // Keeps the common fields; the kind's own have their earlier values, else those of its example.
  function ofKind(kind) {
    lastOfKind[draft.body.kind] = draft.body;
    const own = { ...examples[kind] };
    for (const key of Object.keys(own)) own[key] = draft.body[key] ?? lastOfKind[kind]?.[key] ?? own[key];
    const common = COMMON.filter((key) => key in draft.body).map((key) => [key, draft.body[key]]);
    return { ...own, ...Object.fromEntries(common), kind };
  }

  function fill(source) {
    const { body } = draft;
    for (const radio of form.querySelectorAll('[name="kind"]')) radio.checked = radio.value === body.kind;
    for (const part of form.querySelectorAll("[data-kinds]")) {
      part.hidden = !part.dataset.kinds.split(" ").includes(String(body.kind));
    }
    const fixed = body.on_missing !== null && typeof body.on_missing === "object";
    form.querySelector('[data-path="on_missing.rho"]').closest(".field").hidden = !fixed;
    for (const input of inputs) {
      input.placeholder = placeholderOf(input, body);
      if (source === "form" && input === document.activeElement) continue;
      show(input, input.dataset.path === "on_missing" && fixed ? "rho" : read(body, input.dataset.path));
    }
  }

  draft.onChange(fill);
  fill("load");
}

// Returns the default of an empty input: a part that is left out as a whole has other defaults.
function placeholderOf(input, body) {
  const part = input.closest("[data-part]");
  if (!part || read(body, part.dataset.part) !== undefined) return input.dataset.default ?? "";
  const absent = JSON.parse(part.dataset.absent)[input.dataset.path.split(".").at(-1)];
  return absent === null ? "" : String(absent);
}

const withoutNulls = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== null));
