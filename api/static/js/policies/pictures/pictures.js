// Redraws the curve and the backtest when the policy changes: after a pause in typing, never from an outdated answer, and
// with the last valid picture kept while the policy has errors.

import { post } from "../../api.js";
import { say } from "../../dom.js";
import { clearFaults, showFaults } from "../faults.js";

const PAUSE_MS = 300;
const CURVE = "/dashboard/policies/curve";
const SIMULATE = "/policies/simulate";

// `versions()` returns {stored, edited}: bodies, null where there is none to draw.
export function policyPictures({ versions, run, curve, backtest, form, runForm, json }) {
  const stale = document.getElementById("stale");
  const known = new Map(); // answers for stored versions, fetched once for each run
  let timer = null;
  let flight = null;

  function soon() {
    flight?.abort();
    clearTimeout(timer);
    timer = setTimeout(redraw, PAUSE_MS);
  }

  async function redraw() {
    flight?.abort();
    const { signal } = (flight = new AbortController());
    const asked = run.read();
    const { stored, edited } = versions();
    try {
      const [before, after] = await Promise.all([
        stored && once(CURVE, stored, asked, signal),
        edited && ask(CURVE, edited, asked, signal),
      ]);
      sound();
      curve.show({ stored: before, edited: after, zone: run.zone() });
      if (backtest) {
        backtest.busy(true);
        // One after the other: the service limits concurrent simulations.
        const past = stored && (await once(SIMULATE, stored, asked, signal));
        const next = edited && (await ask(SIMULATE, edited, asked, signal));
        backtest.show({ stored: past, edited: next });
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      faulty(error);
    } finally {
      if (!signal.aborted) backtest?.busy(false);
    }
  }

  async function once(path, policy, asked, signal) {
    const key = JSON.stringify([path, policy, asked]);
    if (!known.has(key)) known.set(key, await ask(path, policy, asked, signal));
    return known.get(key);
  }

  function sound() {
    if (form) clearFaults(form);
    if (runForm) clearFaults(runForm);
    json?.faults([]);
    stale.hidden = true;
  }

  function faulty(error) {
    const errors = error.errors ?? [];
    const homeless = form ? showFaults(form, errors.filter(ofPolicy), "policy.") : [];
    json?.faults(homeless.map(({ field, message }) => ({ field: field.replace(/^policy\./, ""), message })));
    const others = errors.filter((fault) => !ofPolicy(fault));
    const elsewhere = runForm ? showFaults(runForm, others) : others;
    const what = errors.some(ofPolicy) ? "This policy has faults" : errors.length ? "The run has faults" : error.message;
    const more = elsewhere.map(({ field, message }) => ` ${field}: ${message}.`).join("");
    say(stale, `${what}.${more} The pictures show the last valid policy and run.`.replace("..", "."));
  }

  return { soon, redraw };
}

const ofPolicy = ({ field }) => field === "policy" || field.startsWith("policy.");

// Retries after the service's Retry-After where it is at its limit (503).
async function ask(path, policy, asked, signal) {
  for (;;) {
    try {
      return await post(path, { ...asked, policy }, { signal });
    } catch (error) {
      if (error.status !== 503 || !error.retryAfterSeconds) throw error;
      await rest(error.retryAfterSeconds * 1000, signal);
    }
  }
}

function rest(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("no longer asked", "AbortError"));
    });
  });
}
