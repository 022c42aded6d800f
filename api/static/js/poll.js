// Repeats a task while the page is visible: one run at a time, with exponential backoff while it fails.

import { connection } from "./announce.js";

const SLOWEST_MS = 60_000;

// `task` returns the milliseconds until the next run, null to end. Returns a function that runs it now.
export function poll(task, firstMs) {
  let timer = null;
  let busy = false;
  let ended = false;
  let asked = false; // for another run at once, during one that may have started too early
  let failures = 0;
  let waitMs = firstMs;

  const schedule = (ms) => {
    clearTimeout(timer);
    timer = setTimeout(run, ms);
  };

  async function run() {
    if (busy || ended) return;
    if (document.hidden) {
      timer = null; // resumed when the page is shown
      return;
    }
    busy = true;
    try {
      const next = await task();
      failures = 0;
      connection(false);
      ended = next === null;
      if (!ended) waitMs = next;
    } catch (error) {
      failures += 1;
      connection(true);
      console.info("poll failed", String(error));
    } finally {
      busy = false;
    }
    if (asked) {
      asked = ended = false;
      schedule(0);
    } else if (!ended) schedule(Math.min(SLOWEST_MS, waitMs * 2 ** Math.min(failures, 6)));
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && timer === null && !ended) schedule(0);
  });
  schedule(firstMs);
  return () => {
    ended = false;
    if (busy) asked = true;
    else schedule(0);
  };
}
