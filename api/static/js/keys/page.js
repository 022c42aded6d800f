// The page of keys: one is created, its text shown once, and revoked after confirmation.

import { announce } from "../announce.js";
import { post } from "../api.js";
import { deletion } from "../deletion.js";
import { say, setFlag } from "../dom.js";
import { renew } from "../live.js";

const form = document.getElementById("new-key");
const send = form.querySelector("button");
const issued = document.getElementById("issued");
const text = document.getElementById("issued-key");
const fault = document.getElementById("form-error");
const FIELDS = ["owner", "role", "name", "expires_at"];

function showErrors(errors) {
  for (const name of FIELDS) {
    const messages = errors.filter(({ field }) => field === name).map(({ message }) => message);
    say(document.getElementById(`${name}-error`), messages.join("; "));
    setFlag(form.elements[name], "aria-invalid", messages.length > 0);
  }
  form.querySelector('[aria-invalid="true"]')?.focus();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (send.disabled) return;
  // To the minute, in UTC.
  const expires = form.elements.expires_at.value;
  const body = { ...Object.fromEntries(new FormData(form)), expires_at: expires ? `${expires.slice(0, 16)}:00Z` : null };
  showErrors([]);
  say(fault, "");
  if (form.elements.expires_at.validity.badInput) {
    showErrors([{ field: "expires_at", message: "expected a date and a time" }]);
    return;
  }
  send.disabled = true;
  try {
    const key = await post("/keys", body);
    document.getElementById("issued-owner").textContent = key.owner;
    text.textContent = key.key;
    issued.hidden = false;
    issued.focus();
    form.reset();
    renew();
  } catch (problem) {
    showErrors(problem.errors ?? []);
    if (!problem.errors?.length) say(fault, problem.message);
  } finally {
    send.disabled = false;
  }
});

// Copies the key; browsers deny the clipboard to pages over plain HTTP, where it is selected to be copied by hand.
document.getElementById("issued-copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(text.textContent);
    announce("The key is copied");
  } catch {
    document.getSelection().selectAllChildren(text);
    announce("The key is selected: copy it with the keyboard");
  }
});

function hide() {
  text.textContent = "";
  issued.hidden = true;
}

document.getElementById("issued-done").addEventListener("click", () => {
  hide();
  form.elements.owner.focus();
});
// Not kept for the back button.
addEventListener("pagehide", hide);

deletion("/keys", () => renew(), "revoked");
send.disabled = false; // the server sends it disabled, as it works only with this script
