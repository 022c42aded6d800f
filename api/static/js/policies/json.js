// The policy as editable JSON, kept in step with the form.

import { say, setFlag } from "../dom.js";

export function policyJson(area, fault, draft) {
  const textOf = (body) => JSON.stringify(body, null, 2);

  area.addEventListener("input", () => {
    let body;
    try {
      body = JSON.parse(area.value);
    } catch (error) {
      draft.unreadable(area.value);
      return tell(`Not JSON yet: ${error.message}`);
    }
    if (body === null || typeof body !== "object" || Array.isArray(body)) {
      draft.unreadable(area.value);
      return tell("Expected an object, in braces");
    }
    draft.change(body, "json");
    return null;
  });

  function tell(text) {
    say(fault, text);
    setFlag(area, "aria-invalid", Boolean(text));
  }

  function fill(source) {
    if (source === "json") {
      if (draft.text === null) tell("");
      return fit();
    }
    area.value = draft.text ?? textOf(draft.body);
    if (draft.text === null) tell("");
    else area.dispatchEvent(new Event("input"));
    return fit();
  }

  function fit() {
    area.rows = Math.min(40, Math.max(8, area.value.split("\n").length + 1));
  }

  draft.onChange(fill);
  fill("load");

  // Shows the errors without a field in the form, such as that of an unknown key.
  return {
    faults(errors) {
      if (draft.text === null) tell(errors.map(({ field, message }) => `${field}: ${message}`).join("; "));
    },
  };
}
