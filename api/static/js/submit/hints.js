// Shows below each list a hint on its choice, and the fields that belong to the choice.

import { intensityElement } from "../intensity.js";

const INLINE = "{}";

export function showHints(form) {
  for (const list of form.querySelectorAll("select[data-hints]")) {
    const hint = list.selectedOptions[0]?.dataset.hint;
    const place = document.getElementById(`${list.id}-hint`);
    place.dataset.first ??= place.textContent;
    place.textContent = hint ?? place.dataset.first;
  }
  document.getElementById("inline").hidden = form.elements.policy.value !== INLINE;
  const method = form.elements.method.value;
  for (const group of form.querySelectorAll("[data-methods]")) group.hidden = !group.dataset.methods.split(" ").includes(method);
  const gco2e = form.elements.zone.selectedOptions[0]?.dataset.intensity;
  const place = document.getElementById("zone-intensity");
  place.replaceChildren(...(gco2e === undefined ? [] : [intensityElement(Number(gco2e))]));
}
