// Uploads a file of training rows when it is chosen, and shows progress and errors.

import { announce } from "./announce.js";
import { InvalidColumns, parseColumns } from "./columns.js";
import { element, say as show, setFlag } from "./dom.js";
import { size } from "./format.js";

const MOST_SHOWN = 10;

// `done(dataset)` is called with the answer of POST /datasets.
export function upload(input, done) {
  const part = (name) => document.getElementById(`${input.id}-${name}`);
  const columns = part("columns");
  const again = part("again");
  const progress = part("upload");
  const bar = progress.querySelector("progress");
  const text = progress.querySelector("span");
  let request = null;
  let refused = null; // the file that can be uploaded again, with other columns

  progress.querySelector("button").addEventListener("click", () => request?.abort());
  input.addEventListener("change", () => take(input.files[0]));
  again.addEventListener("click", () => take(refused));
  input.form?.addEventListener("reset", () => take(null));
  columns.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // it would submit the form around
    if (refused) take(refused);
  });
  columns.addEventListener("input", () => sayColumns(""));

  function take(file) {
    request?.abort();
    say("", []);
    sayColumns("");
    offer(null);
    if (!file) return;
    const most = Number(input.dataset.maxBytes);
    if (file.size > most) return refuse(null, `${file.name} has ${size(file.size)}: at most ${size(most)} are accepted`, []);
    try {
      return begin(file, parseColumns(columns.value));
    } catch (error) {
      if (!(error instanceof InvalidColumns)) throw error;
      return refuse(file, error.message, [{ field: "columns", message: error.message }]);
    }
  }

  function begin(file, mapping) {
    const form = new FormData();
    if (mapping !== null) form.append("columns", mapping);
    form.append("file", file);
    request = new XMLHttpRequest(); // fetch reports no upload progress
    request.open("POST", "/datasets");
    request.setRequestHeader("Accept", "application/json");
    request.responseType = "text";
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      bar.value = total ? loaded / total : 0;
      text.textContent = loaded < total ? `${size(loaded)} of ${size(total)}` : "sent; each row is being checked …";
    });
    request.addEventListener("load", ({ target }) => answered(target, file));
    request.addEventListener("error", () => {
      refuse(file, "The upload was interrupted: the service cannot be reached or refused it, or the file has changed since it was chosen.", []);
    });
    request.addEventListener("loadend", () => {
      progress.hidden = true;
      input.value = ""; // so that the same file, corrected, can be chosen again
    });
    bar.value = 0;
    text.textContent = "";
    progress.hidden = false;
    request.send(form);
  }

  function answered({ status, responseText }, file) {
    let answer;
    try {
      answer = JSON.parse(responseText);
    } catch {
      refuse(file, `The answer to the upload is not JSON (status ${status}).`, []);
      return;
    }
    if (status === 201) done(answer);
    else refuse(file, answer.detail ?? answer.title, answer.errors ?? []);
  }

  // `file`: null where it would be refused again.
  function refuse(file, detail, errors) {
    announce(`The file was not accepted. ${detail}`);
    input.value = "";
    offer(file);
    const ofColumns = errors.filter(({ field }) => field === "columns");
    if (ofColumns.length) sayColumns(ofColumns.map(({ message }) => message).join("; "));
    else say(errors.length === 1 && errors[0].field === "file" ? `${file.name} ${errors[0].message}` : detail, errors);
  }

  function offer(file) {
    refused = file;
    again.hidden = !file;
    again.textContent = file ? `Upload ${file.name} again` : "";
  }

  function sayColumns(message) {
    show(part("columns-error"), message);
    setFlag(columns, "aria-invalid", Boolean(message));
  }

  function say(detail, errors) {
    show(part("error"), detail);
    setFlag(input, "aria-invalid", Boolean(detail));
    if (errors.length < 2) return;
    const shown = errors.slice(0, MOST_SHOWN).map(({ field, message }) => element("li", {}, `${field}: ${message}`));
    const more = errors.length > MOST_SHOWN ? `, the first ${MOST_SHOWN} of which are` : "";
    part("error").replaceChildren(`${errors.length} faults${more}:`, element("ul", {}, ...shown));
  }
}
