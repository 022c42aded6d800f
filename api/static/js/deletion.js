// Deletes a policy or a dataset, or revokes a key, after confirmation.

import { announce } from "./announce.js";
import { remove } from "./api.js";
import { say } from "./dom.js";

// Buttons with `data-delete` (a name in `collection`, such as "/policies", shown as `data-label` where it has one) open the
// dialog; `onDeleted` is called with the name, and `done` is the participle that is announced, such as "revoked".
export function deletion(collection, onDeleted, done = "deleted") {
  const dialog = document.getElementById("delete-dialog");
  const fault = dialog.querySelector(".error");
  const confirm = dialog.querySelector(".confirm");
  let name = null;
  let label = null;

  document.addEventListener("click", ({ target }) => {
    if (!target.dataset?.delete) return;
    name = target.dataset.delete;
    label = target.dataset.label ?? name;
    dialog.querySelector(".name").textContent = label;
    fault.hidden = true;
    dialog.showModal();
  });
  dialog.querySelector(".cancel").addEventListener("click", () => dialog.close());

  confirm.addEventListener("click", async () => {
    confirm.disabled = true;
    try {
      await remove(`${collection}/${encodeURIComponent(name)}`);
    } catch (error) {
      if (error.status !== 404) {
        say(fault, error.message);
        return;
      }
    } finally {
      confirm.disabled = false;
    }
    dialog.close();
    announce(`${label} is ${done}`);
    onDeleted(name);
  });
}
