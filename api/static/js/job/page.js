// The page of a job: its actions, its long tables, countdowns, copy buttons, and the state that survives a reload.

import { announce } from "../announce.js";
import { duration } from "../format.js";
import { actions } from "./actions.js";
import { keepOpened, keepScroll } from "./kept.js";
import { growing } from "./rows.js";

const CLOCK_EVERY_MS = 15_000;
const job = document.getElementById("confirm").dataset.job;

document.documentElement.classList.add("scripted");
keepOpened(job);
keepScroll(job);
actions(job);
growing("epochs", "epoch-rows");
growing("events", "event-rows");
document.addEventListener("click", copy);
document.addEventListener("live", tick);
setInterval(tick, CLOCK_EVERY_MS);
tick();

// Counts down to the times in `data-until`; seconds are shown only in the last minutes.
function tick() {
  for (const element of document.querySelectorAll("[data-until]")) {
    const seconds = (Date.parse(element.dataset.until) - Date.now()) / 1000;
    const rounded = seconds > 300 ? Math.round(seconds / 60) * 60 : seconds;
    element.textContent = seconds > 0 ? `in ${duration(rounded)}` : "any moment";
  }
}

// Copies a checksum; without access to the clipboard, it is selected to be copied by hand.
async function copy(event) {
  const button = event.target.closest?.("button[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
    announce("Copied");
    setTimeout(() => (button.textContent = "Copy"), 2000);
  } catch (error) {
    // Browsers deny the clipboard to pages over plain HTTP.
    getSelection().selectAllChildren(source);
    announce("Selected: copy it with the keyboard");
    console.info("clipboard", String(error));
  }
}
