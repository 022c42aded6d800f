// Between an input and the value in the body that it stands for.

// What was entered: undefined for nothing, and for what is no number a text, at which the server takes offence.
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
