// Buttons that copy a checksum; without access to the clipboard, it is selected to be copied by hand.

import { announce } from "./announce.js";

export function copyButtons() {
  document.addEventListener("click", async (event) => {
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
  });
}
