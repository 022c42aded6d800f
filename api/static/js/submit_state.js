// Keeps what was written into the form for as long as the tab is open, so that a reload loses nothing.
//
// Each address has its own: a form that begins like another job (`?from=`) does not overwrite the plain one.

const PLACE = `greentune.submit${location.search}`;

const kept = (form) => [...form.elements].filter((control) => control.name && control.type !== "file");

export function keep(form, pairs) {
  const values = Object.fromEntries(kept(form).map((control) => [control.name, control.value]));
  sessionStorage.setItem(PLACE, JSON.stringify({ values, metadata: pairs }));
}

export const forget = () => sessionStorage.removeItem(PLACE);

// Fills the form with what was kept, else with what the server would have it begin with.
export function restore(form, metadata) {
  // Not form.dataset: that is the field of this name.
  const state = JSON.parse(sessionStorage.getItem(PLACE) ?? form.getAttribute("data-prefill"));
  for (const control of kept(form)) {
    if (!(control.name in state.values)) continue;
    const first = control.value;
    control.value = state.values[control.name];
    // What is not to be chosen any more, such as a dataset that was deleted.
    if (control.tagName === "SELECT" && control.selectedIndex < 0) control.value = first;
    if (control.value !== first) control.closest("details")?.setAttribute("open", "");
  }
  metadata.fill(state.metadata);
}
