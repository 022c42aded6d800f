// Keeps the form's values and its Idempotency-Key while the tab is open, so that they survive a reload.

// By address: a form that copies another job (`?from=`) does not overwrite the plain one.
const PLACE = `greentune.submit${location.search}`;

const KEY_PLACE = "greentune.submit.key";

const kept = (form) => [...form.elements].filter((control) => control.name && control.type !== "file");

export function keep(form, pairs) {
  const values = Object.fromEntries(kept(form).map((control) => [control.name, control.value]));
  sessionStorage.setItem(PLACE, JSON.stringify({ values, metadata: pairs }));
}

export function forget() {
  sessionStorage.removeItem(PLACE);
  sessionStorage.removeItem(KEY_PLACE);
}

// Fills the form with the values kept, else with the server's initial values.
export function restore(form, metadata) {
  // Not form.dataset, which is the field of this name.
  const state = JSON.parse(sessionStorage.getItem(PLACE) ?? form.getAttribute("data-prefill"));
  for (const control of kept(form)) {
    if (!(control.name in state.values)) continue;
    const first = control.value;
    control.value = state.values[control.name];
    // A choice that no longer exists, such as a deleted dataset.
    if (control.tagName === "SELECT" && control.selectedIndex < 0) control.value = first;
    if (control.value !== first) control.closest("details")?.setAttribute("open", "");
  }
  metadata.fill(state.metadata);
}

// Returns the Idempotency-Key of a submission: the same for the same body until it is submitted, so that a double click,
// a retry after a lost connection, or one after a reload makes one job.
export function keyFor(body) {
  const text = JSON.stringify(body);
  const kept = JSON.parse(sessionStorage.getItem(KEY_PLACE) ?? "null");
  if (kept?.text === text) return kept.key;
  // Not crypto.randomUUID, which exists only over HTTPS and on localhost.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const key = `form-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
  sessionStorage.setItem(KEY_PLACE, JSON.stringify({ text, key }));
  return key;
}
