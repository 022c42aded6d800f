// Countdowns to the times in `data-until`, updated while the page is open.

import { duration } from "./format.js";

const EVERY_MS = 15_000;

export function clocks() {
  const tick = () => {
    for (const element of document.querySelectorAll("[data-until]")) {
      const seconds = (Date.parse(element.dataset.until) - Date.now()) / 1000;
      element.textContent = seconds > 0 ? `in ${duration(rounded(seconds))}` : "any moment";
    }
  };
  document.addEventListener("live", tick);
  setInterval(tick, EVERY_MS);
  tick();
}

// Seconds are shown only in the last minutes.
const rounded = (seconds) => (seconds > 300 ? Math.round(seconds / 60) * 60 : seconds);
