// The filter of the jobs page: a choice is applied at once, without leaving the page, and written into its URL.

import { announce } from "../announce.js";
import { say, setFlag } from "../dom.js";
import { renew } from "../live.js";

const form = document.getElementById("filter");
const label = form.elements.label;
const fault = document.getElementById("label-error");
let applied = false;

// Returns the form's query parameters as the server writes them: no empty ones, metadata as `metadata[key]=value`.
function parameters() {
  const chosen = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    if (value.trim() && name !== label.name) chosen.append(name, value);
  }
  const written = label.value.trim();
  if (written) {
    const middle = written.indexOf("=");
    chosen.set(`metadata[${written.slice(0, middle).trim()}]`, written.slice(middle + 1).trim());
  }
  return chosen;
}

function check() {
  const wrong = label.value.trim() !== "" && label.value.trim().indexOf("=") < 1;
  say(fault, wrong ? "Expected key=value, as in team=speech." : "");
  setFlag(label, "aria-invalid", wrong);
  return !wrong;
}

function apply() {
  if (!check()) return label.focus();
  const query = parameters().toString();
  label.value = "";
  document.getElementById("errors")?.remove();
  history.pushState(null, "", query ? `/?${query}` : "/");
  applied = true;
  renew();
}

// Shows the URL's filter in the form after the browser's back or forward button.
function follow() {
  const given = new URLSearchParams(location.search);
  for (const name of ["status", "zone", "name", "model", "owner"]) {
    const control = form.elements.namedItem(name);
    if (control) control.value = given.get(name) ?? "";
  }
  label.value = "";
  check();
  applied = true;
  renew();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  apply();
});
for (const select of form.querySelectorAll("select")) select.addEventListener("change", apply);
addEventListener("popstate", follow);
document.addEventListener("live", (event) => {
  if (!applied || !event.detail.includes("conditions")) return;
  applied = false;
  announce(`${document.getElementById("shown")?.textContent ?? "No job"} shown`);
});
