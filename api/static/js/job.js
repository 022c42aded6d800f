// The page of a job: its actions, its long tables, and the state that survives a reload.

import { actions } from "./job_actions.js";
import { clocks } from "./job_clocks.js";
import { copyButtons } from "./job_copy.js";
import { keepOpened, keepScroll } from "./job_kept.js";
import { growing } from "./job_rows.js";

const job = document.getElementById("confirm").dataset.job;

document.documentElement.classList.add("scripted");
keepOpened(job);
keepScroll(job);
actions(job);
growing("epochs", "epoch-rows");
growing("events", "event-rows");
copyButtons();
clocks();
