// Requests an estimate shortly after the last change, and shows it beside the form.

import { announce } from "../announce.js";
import { get, post } from "../api.js";
import { say } from "../dom.js";
import { number, percent } from "../format.js";
import { clearErrors, showErrors } from "./errors.js";
import { comparison } from "./comparison.js";
import { showHints } from "./hints.js";

const AFTER_CHANGE_MS = 400;
const AGAIN_MS = 3_000;

// `read()` returns {body, errors, complete}. Returns {renew(), stop()}.
export function liveEstimate(form, read) {
  const status = document.getElementById("estimate-status");
  const place = document.getElementById("estimate");
  const waits = status.textContent;
  let timer = null;
  let running = null;

  function after(ms) {
    stop();
    timer = setTimeout(run, ms);
  }

  function stop() {
    clearTimeout(timer);
    running?.abort();
    running = null;
    place.classList.remove("old");
  }

  function nothing(text) {
    place.replaceChildren();
    say(status, text);
  }

  async function run() {
    const { body, errors, complete } = read();
    if (!complete) return nothing(waits);
    if (errors.length) {
      showErrors(errors);
      return nothing("No estimate: see the marked fields.");
    }
    const ours = (running = new AbortController());
    place.classList.add("old");
    try {
      if (!(await measured(body.model, ours.signal))) {
        nothing(`${body.model} is being measured by a prepare worker: the estimate follows.`);
        return after(AGAIN_MS);
      }
      const found = await post("/jobs/estimate", body, { signal: ours.signal });
      if (running !== ours) return undefined;
      clearErrors();
      say(status, "");
      const opened = place.querySelector("details")?.open ?? false;
      place.replaceChildren(...comparison(found));
      place.querySelector("details").open = opened;
      tell(found);
    } catch (problem) {
      if (problem.name === "AbortError" || running !== ours) return undefined;
      failed(problem);
    } finally {
      if (running === ours) place.classList.remove("old");
    }
    return undefined;
  }

  function failed(problem) {
    if (problem.errors?.length) {
      clearErrors();
      const unplaced = showErrors(problem.errors);
      const told = unplaced.map(({ field, message }) => `${field}: ${message}`);
      nothing(["No estimate: see the marked fields.", ...told].join(" "));
      return;
    }
    nothing(problem.message);
    if ([0, 409, 429, 503].includes(problem.status)) after((problem.retryAfterSeconds ?? 0) * 1000 || AGAIN_MS);
  }

  // Whether the model has been measured: without that there is no estimate.
  async function measured(model, signal) {
    const option = form.elements.model.selectedOptions[0];
    if (!option || "measured" in option.dataset) return true;
    const { data } = await get("/models", { signal });
    const found = data.find(({ name }) => name === model);
    if (!found?.parameters) return false;
    option.dataset.measured = "";
    option.dataset.hint += `; ${found.parameters.toLocaleString("en-US")} parameters; ρ at least ${number(found.rho_floor, 3)}`;
    showHints(form);
    return true;
  }

  let told = "";
  function tell({ now, best, saving }) {
    const gco2e = (run) => (run.emissions_gco2e ? `${number(run.emissions_gco2e.expected, 3)} gCO2e` : "no emissions known");
    const text = `Estimate: now ${gco2e(now)}, in the best window ${gco2e(best)}${saving ? `, saving ${percent(saving.share)}` : ""}`;
    if (text !== told) announce(text);
    told = text;
  }

  return { renew: () => after(AFTER_CHANGE_MS), stop };
}
