// The buttons that cancel, pause, resume or retry a job; cancel and retry ask for confirmation.

import { announce } from "../announce.js";
import { post } from "../api.js";
import { renew } from "../live.js";

const QUESTIONS = {
  cancel: {
    title: "Cancel this job?",
    text: "A worker that runs it stops after the current step. Its energy and emissions stay on record. It can be retried later.",
    yes: "Cancel the job",
    danger: true,
  },
  retry: {
    title: "Retry this job?",
    text: "It resumes from its last checkpoint, if it has one, and keeps its energy and emissions so far.",
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
    // Not disabled, since that would take the focus from the button.
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

  // The button of an action that is no longer possible is removed: the focus moves to one that is.
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

// Opens the dialog; resolves to true where it is confirmed.
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
