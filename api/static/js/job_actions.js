// The buttons that cancel, pause, resume or retry a job: what cannot be taken back is asked first.

import { announce } from "./announce.js";
import { post } from "./api.js";
import { renew } from "./live.js";

const QUESTIONS = {
  cancel: {
    title: "Cancel this job?",
    text: "A worker that runs it stops after the step it is in. What it has used and emitted stays on record. It can be retried later.",
    yes: "Cancel the job",
    danger: true,
  },
  retry: {
    title: "Try this job again?",
    text: "It goes on from its last checkpoint, where there is one, and keeps its energy and emissions so far.",
    yes: "Retry the job",
    danger: false,
  },
};

export function actions(job) {
  const place = document.getElementById("actions");
  const error = document.getElementById("action-error");
  let asking = false;

  place.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-action]");
    if (!button || asking) return;
    const { action } = button.dataset;
    if (QUESTIONS[action] && !(await confirmed(QUESTIONS[action]))) {
      backTo(button.id);
      return;
    }
    asking = true;
    error.textContent = "";
    // Not disabled: that would take the focus away from under the hands of whoever pressed it.
    button.setAttribute("aria-disabled", "true");
    try {
      const answer = await post(`/jobs/${job}/${action}`);
      announce(`The job is ${answer.status}${answer.reason ? `: ${answer.reason}` : ""}`);
    } catch (problem) {
      error.textContent = problem.message;
    } finally {
      asking = false;
      document.getElementById(button.id)?.removeAttribute("aria-disabled");
      backTo(button.id);
      renew();
    }
  });

  // An action that is no longer possible takes its button along: the focus goes to what can be asked now.
  document.addEventListener("live", (event) => {
    if (event.detail.includes("actions") && lastFocused) backTo(lastFocused);
  });
  let lastFocused = null;
  place.addEventListener("focusin", (event) => {
    lastFocused = event.target.id;
  });
  document.addEventListener("focusin", (event) => {
    if (!place.contains(event.target)) lastFocused = null;
  });
}

function backTo(id) {
  const place = document.getElementById("actions");
  (document.getElementById(id) ?? place.querySelector("button") ?? place).focus({ preventScroll: true });
}

// Asks in the dialog; true where the answer is yes.
function confirmed(question) {
  const dialog = document.getElementById("confirm");
  const yes = document.getElementById("confirm-yes");
  const no = document.getElementById("confirm-no");
  document.getElementById("confirm-title").textContent = question.title;
  document.getElementById("confirm-text").textContent = question.text;
  yes.textContent = question.yes;
  yes.className = question.danger ? "danger" : "main";
  return new Promise((resolve) => {
    yes.onclick = () => dialog.close("yes");
    no.onclick = () => dialog.close("no");
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
    dialog.returnValue = "no";
    dialog.showModal();
    no.focus();
  });
}
