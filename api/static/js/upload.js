// Uploads a file of training rows when it is chosen, and shows progress and errors.

import { announce } from "./announce.js";
import { element, say as show, setFlag } from "./dom.js";
import { size } from "./format.js";

const MOST_SHOWN = 10;

// `done(dataset)` is called with the answer of POST /datasets.
export function upload(input, done) {
  const progress = document.getElementById(`${input.id}-upload`);
  const bar = progress.querySelector("progress");
  const text = progress.querySelector("span");
  const error = document.getElementById(`${input.id}-error`);
  let request = null;

  progress.querySelector("button").addEventListener("click", () => request?.abort());

  input.addEventListener("change", () => {
    const [file] = input.files;
    request?.abort();
    say("", []);
    if (!file) return;
    const most = Number(input.dataset.maxBytes);
    if (file.size > most) say(`${file.name} has ${size(file.size)}: at most ${size(most)} are accepted`, []);
    else begin(file);
  });

  function begin(file) {
    const form = new FormData();
    form.append("file", file);
    request = new XMLHttpRequest(); // fetch reports no upload progress
    request.open("POST", "/datasets");
    request.setRequestHeader("Accept", "application/json");
    request.responseType = "text";
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      bar.value = total ? loaded / total : 0;
      text.textContent = loaded < total ? `${size(loaded)} of ${size(total)}` : "sent; each row is being checked …";
    });
    request.addEventListener("load", () => answered(request));
    request.addEventListener("error", () => say("The upload was interrupted: the service cannot be reached, or refused it.", []));
    request.addEventListener("loadend", () => {
      progress.hidden = true;
      input.value = ""; // so that the same file, corrected, can be chosen again
    });
    bar.value = 0;
    text.textContent = "";
    progress.hidden = false;
    request.send(form);
  }

  function answered({ status, responseText }) {
    let answer;
    try {
      answer = JSON.parse(responseText);
    } catch {
      say(`The answer to the upload is not JSON (status ${status}).`, []);
      return;
    }
    if (status === 201) done(answer);
    else say(answer.detail ?? answer.title, answer.errors ?? []);
  }

  function say(detail, errors) {
    show(error, detail);
    setFlag(input, "aria-invalid", Boolean(detail));
    if (!detail) return;
    announce(`The file was not accepted. ${detail}`);
    if (errors.length < 2) return;
    const shown = errors.slice(0, MOST_SHOWN).map(({ field, message }) => element("li", {}, `${field}: ${message}`));
    const more = errors.length > MOST_SHOWN ? `, the first ${MOST_SHOWN} of which are` : "";
    error.replaceChildren(`${errors.length} faults${more}:`, element("ul", {}, ...shown));
  }
}
