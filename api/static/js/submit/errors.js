// Shows each error at its field. `errors` are those of a problem: [{field, message}].

import { say, setFlag } from "../dom.js";

const PLACES = new Map([...document.querySelectorAll("[data-field]")].map((place) => [place.dataset.field, place]));

// Shows the errors, and returns those without a field in the form.
export function showErrors(errors) {
  const unplaced = [];
  for (const error of errors) {
    const name = fieldOf(error.field);
    if (name === null) {
      unplaced.push(error);
      continue;
    }
    const place = messageOf(name);
    const part = error.field === name ? "" : `${error.field.slice(name.length).replace(/^\./, "")}: `;
    say(place, [place.textContent, part + error.message].filter(Boolean).join("; "));
    PLACES.get(name).closest("details")?.setAttribute("open", "");
    for (const control of controlsOf(name)) setFlag(control, "aria-invalid", true);
  }
  return unplaced;
}

export function clearErrors() {
  for (const name of PLACES.keys()) if (!name.endsWith("file")) clearField(name);
}

export function clearField(given) {
  say(document.getElementById("form-error"), "");
  const name = fieldOf(given.replace("policy-json", "policy"));
  if (name === null) return;
  say(messageOf(name), "");
  for (const control of controlsOf(name)) setFlag(control, "aria-invalid", false);
}

export function focusFirst() {
  document.querySelector('#job [aria-invalid="true"]:not([hidden])')?.focus();
}

// `policy.steps[1].rho` belongs to `policy`.
function fieldOf(path) {
  let name = path;
  while (name && !PLACES.has(name)) name = name.replace(/(^|\.)[^.[]*$|\[[^[]*$/, "");
  return name || null;
}

const messageOf = (name) => document.getElementById(`${name.replaceAll(".", "-")}-error`);

function controlsOf(name) {
  const all = [...PLACES.get(name).querySelectorAll("input, select, textarea")];
  const inline = all.filter((control) => control.tagName === "TEXTAREA" && control.offsetParent);
  return inline.length ? inline : all.filter((control) => control.tagName !== "TEXTAREA");
}
