// Deletes a policy after confirmation.

import { announce } from "../announce.js";
import { remove } from "../api.js";
import { say } from "../dom.js";

// Buttons with `data-delete` open the dialog; `onDeleted` is called with the name.
export function policyDelete(onDeleted) {
  const dialog = document.getElementById("delete-dialog");
  const fault = dialog.querySelector(".error");
  const confirm = dialog.querySelector(".confirm");
  let name = null;

  document.addEventListener("click", ({ target }) => {
    if (!target.dataset?.delete) return;
    name = target.dataset.delete;
    dialog.querySelector(".name").textContent = name;
    fault.hidden = true;
    dialog.showModal();
  });
  dialog.querySelector(".cancel").addEventListener("click", () => dialog.close());

  confirm.addEventListener("click", async () => {
    confirm.disabled = true;
    try {
      await remove(`/policies/${encodeURIComponent(name)}`);
    } catch (error) {
      if (error.status !== 404) {
        say(fault, error.message);
        return;
      }
    } finally {
      confirm.disabled = false;
    }
    dialog.close();
    announce(`${name} is deleted`);
    onDeleted(name);
  });
}
