// The steps of a policy, as rows that can be added and removed.

import { show, valueOf } from "./inputs.js";
import { read, written } from "./paths.js";

export function policySteps(form, draft) {
  const list = form.querySelector("#steps");
  const template = form.querySelector("#step");
  const add = form.querySelector("#add-step");

  const steps = () => (Array.isArray(draft.body.steps) ? draft.body.steps : []);
  const change = (next) => draft.change(written(draft.body, "steps", next), "steps");

  list.addEventListener("input", ({ target }) => {
    draft.change(written(draft.body, target.dataset.path, valueOf(target)), "steps");
  });

  // The last step applies at any intensity, so a new one is inserted before it.
  add.addEventListener("click", () => {
    const before = steps();
    const at = Math.max(0, before.length - 1);
    change([...before.slice(0, at), { up_to: undefined, rho: before[at]?.rho }, ...before.slice(at)]);
    list.children[at]?.querySelector("input").focus();
  });

  list.addEventListener("click", ({ target }) => {
    if (!target.matches(".remove")) return;
    const at = [...list.children].indexOf(target.closest("li"));
    change(steps().filter((_, index) => index !== at));
    (list.children[Math.min(at, list.children.length - 1)]?.querySelector(".remove") ?? add).focus();
  });

  function row(index) {
    const item = template.content.cloneNode(true).firstElementChild;
    for (const field of item.querySelectorAll(".field")) {
      const input = field.querySelector("input");
      const fault = field.querySelector(".error");
      const path = `steps[${index}].${input.dataset.path}`;
      const label = field.querySelector("label");
      input.dataset.path = fault.dataset.fault = path;
      input.id = label.htmlFor = `field-${path}`;
      fault.id = `fault-${path}`;
      input.setAttribute("aria-describedby", fault.id);
      input.setAttribute("aria-label", `${label.textContent} of step ${index + 1}`);
      field.querySelector(".hint").remove(); // a hint in every row would be too much
    }
    item.querySelector(".remove").setAttribute("aria-label", `Remove step ${index + 1}`);
    return item;
  }

  function fill() {
    const count = steps().length;
    while (list.children.length > count) list.lastElementChild.remove();
    while (list.children.length < count) list.append(row(list.children.length));
    for (const input of list.querySelectorAll("input")) {
      const last = input.dataset.path === `steps[${count - 1}].up_to`;
      input.placeholder = last ? "above" : "";
      if (input !== document.activeElement || !input.validity.badInput) show(input, read(draft.body, input.dataset.path));
    }
  }

  draft.onChange(fill);
  fill();
}
