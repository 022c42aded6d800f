// Converts between an input and its value in the body.

// Returns the input's value: undefined where it is empty, and for an invalid number a text, which the server rejects.
export function valueOf(input) {
  if (input.type !== "number") return input.value;
  if (input.validity.badInput) return "";
  return input.value === "" ? undefined : Number(input.value);
}

export function show(input, value) {
  if (input.tagName === "SELECT") {
    const first = [...input.options].find((option) => option.defaultSelected) ?? input.options[0];
    input.value = value ?? first.value;
    return;
  }
  const text = value === undefined || value === null ? "" : String(value);
  if (input.value !== text) input.value = text;
}
