// Shows each error beside the field that it names.

import { say, setFlag } from "../dom.js";

// Shows `errors` ([{field, message}]) at the elements with `data-fault` within `root`; `prefix` is cut off the fields.
// Returns those without a visible place.
export function showFaults(root, errors, prefix = "") {
  clearFaults(root);
  return errors.filter(({ field, message }) => {
    const path = field.startsWith(prefix) ? field.slice(prefix.length) : field;
    const place = placeOf(root, path);
    if (!place) return true;
    say(place, place.textContent ? `${place.textContent}; ${message}` : message);
    const inputs = root.querySelectorAll(`[data-path="${CSS.escape(place.dataset.fault)}"]`);
    for (const input of inputs) setFlag(input, "aria-invalid", true);
    return false;
  });
}

export function clearFaults(root) {
  for (const place of root.querySelectorAll("[data-fault]")) say(place, "");
  for (const input of root.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}

// Returns the place of a field's errors; null where it is hidden with its parent.
function placeOf(root, path) {
  const place = root.querySelector(`[data-fault="${CSS.escape(path)}"]`);
  return place && !place.parentElement.closest("[hidden]") ? place : null;
}
