// The rows of metadata: a key and a value each.

import { element } from "../dom.js";

// `changed` is called when a row is removed. Returns {pairs(), fill(pairs)}.
export function metadataRows(place, add, changed) {
  function row(key = "", value = "") {
    const remove = element("button", { type: "button" }, "Remove");
    const line = element("div", { className: "pair" }, control("Key", key, 64), control("Value", value, 512), remove);
    remove.addEventListener("click", () => {
      (line.nextElementSibling ?? line.previousElementSibling)?.querySelector("button")?.focus();
      line.remove();
      if (!place.children.length) add.focus();
      number();
      changed();
    });
    place.append(line);
    number();
    return line;
  }

  function control(kind, value, maxLength) {
    const input = element("input", { value, maxLength, placeholder: kind });
    input.dataset.kind = kind;
    return input;
  }

  function number() {
    [...place.children].forEach((line, index) => {
      for (const input of line.querySelectorAll("input")) {
        input.setAttribute("aria-label", `${input.dataset.kind} of pair ${index + 1}`);
      }
      line.querySelector("button").setAttribute("aria-label", `Remove pair ${index + 1}`);
    });
  }

  add.addEventListener("click", () => row().querySelector("input").focus());

  return {
    pairs: () => [...place.children].map((line) => [...line.querySelectorAll("input")].map((input) => input.value)),
    fill(pairs) {
      place.replaceChildren();
      for (const [key, value] of pairs) row(key, value);
    },
  };
}
