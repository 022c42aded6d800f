// The form of a new job: kept over a reload, estimated on each change, and submitted once.

import { announce } from "../announce.js";
import { post } from "../api.js";
import { say } from "../dom.js";
import { bodyOf } from "./body.js";
import { liveEstimate } from "./estimate.js";
import { clearErrors, clearField, focusFirst, showErrors } from "./errors.js";
import { showHints } from "./hints.js";
import { metadataRows } from "./metadata.js";
import { forget, keep, keyFor, restore } from "./state.js";
import { upload } from "../upload.js";

const form = document.getElementById("job");
const send = document.querySelector('button[form="job"]:not([type="reset"])');
const metadata = metadataRows(document.getElementById("metadata"), document.getElementById("add-metadata"), changed);
const estimate = liveEstimate(form, () => bodyOf(form, metadata.pairs()));

function changed(event) {
  if (event?.target?.name) clearField(event.target.name);
  showHints(form);
  keep(form, metadata.pairs());
  estimate.renew();
}

restore(form, metadata);
showHints(form);
estimate.renew();

form.addEventListener("input", (event) => {
  if (!event.target.closest(".upload")) changed(event);
});
form.addEventListener("reset", () => {
  forget();
  clearErrors();
  metadata.fill([]);
  // The controls have their initial values only after this event.
  setTimeout(() => {
    showHints(form);
    estimate.renew();
  });
});

for (const button of form.querySelectorAll("button[data-hours]")) {
  button.addEventListener("click", () => {
    const hours = Number(button.dataset.hours);
    form.elements.deadline.value = hours ? new Date(Date.now() + hours * 3_600_000).toISOString().slice(0, 16) : "";
    changed({ target: form.elements.deadline });
  });
}

for (const input of form.querySelectorAll("[data-upload-to]")) {
  upload(input, (dataset) => {
    const rows = `${dataset.rows.toLocaleString("en-GB")} row${dataset.rows === 1 ? "" : "s"}`;
    const choice = form.elements[input.dataset.uploadTo];
    const option = new Option(`${dataset.name || dataset.id} (${rows})`, dataset.id, false, true);
    option.dataset.hint = `${dataset.id}, just uploaded`;
    choice.add(option, 1);
    announce(`${dataset.name}: ${rows} uploaded and chosen`);
    changed({ target: choice });
  });
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (send.disabled) return;
  clearErrors();
  const { body, errors } = bodyOf(form, metadata.pairs());
  if (errors.length) return refused(errors, "The form has errors.");
  send.disabled = true;
  send.setAttribute("aria-busy", "true");
  try {
    const job = await post("/jobs", body, { headers: { "Idempotency-Key": keyFor(body) } });
    estimate.stop();
    forget();
    location.assign(job.links.page);
  } catch (problem) {
    send.disabled = false;
    refused(problem.errors ?? [], problem.message);
  } finally {
    send.removeAttribute("aria-busy");
  }
});

send.disabled = false; // the server sends it disabled, as it works only with this script

function refused(errors, message) {
  estimate.stop();
  const unplaced = showErrors(errors);
  const fields = errors.length - unplaced.length;
  const told = errors.length ? unplaced.map((error) => `${error.field}: ${error.message}`) : [message];
  if (fields) told.unshift(fields === 1 ? "One field has to be corrected." : `${fields} fields have to be corrected.`);
  say(document.getElementById("form-error"), told.join(" "));
  focusFirst();
}

// A page that the browser restores from its cache can be submitted again.
addEventListener("pageshow", () => {
  send.disabled = false;
});
