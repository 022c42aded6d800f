// Builds the body of POST /jobs from the form. Empty fields are left out: the service has defaults for them.

const INLINE = "{}";
const PREFIX = "hyperparameters.";

// Returns {body, errors, complete}: errors, in the service's form, of fields that cannot be sent; `complete` where the
// body suffices for an estimate.
export function bodyOf(form, pairs) {
  const errors = [];
  const body = {};
  const value = (name) => form.elements[name].value.trim();
  for (const name of ["model", "dataset"]) {
    if (value(name)) body[name] = value(name);
    else errors.push({ field: name, message: `choose a ${name}` });
  }
  if (value("validation_dataset")) body.validation_dataset = value("validation_dataset");
  if (value("name")) body.name = value("name");
  body.method = value("method");
  const policy = policyOf(value("policy"), value("policy-json"), errors);
  if (policy !== undefined) body.policy = policy;
  if (value("zone")) body.zone = value("zone");
  const deadline = form.elements.deadline;
  if (deadline.validity.badInput) errors.push({ field: "deadline", message: "expected a date and a time" });
  // To the minute, in UTC.
  else if (deadline.value) body.deadline = `${deadline.value.slice(0, 16)}:00Z`;
  if (value("priority") || form.elements.priority.validity.badInput) body.priority = numberOf(form.elements.priority);
  const gpus = form.elements["resources.gpus"];
  if (gpus.value.trim()) body.resources = { gpus: gpus.value.trim() === "auto" ? "auto" : numberOf(gpus) };
  body.hyperparameters = settingsOf(form);
  const metadata = metadataOf(pairs, errors);
  if (Object.keys(metadata).length) body.metadata = metadata;
  return { body, errors, complete: Boolean(body.model && body.dataset) };
}

function policyOf(choice, text, errors) {
  if (choice !== INLINE) return choice || undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    errors.push({ field: "policy", message: `not JSON: ${error.message}` });
    return undefined;
  }
}

// Returns the settings that differ from their defaults; those of a group that belongs to other methods are left out.
function settingsOf(form) {
  const found = {};
  for (const control of form.elements) {
    if (!control.name?.startsWith(PREFIX) || control.closest("[data-methods][hidden]")) continue;
    const unchanged = control.value.trim() === control.dataset.default && !control.validity.badInput;
    if (unchanged || (!control.value.trim() && !control.validity.badInput)) continue;
    const path = control.name.slice(PREFIX.length).split(".");
    const name = path.pop();
    const group = path.reduce((within, part) => (within[part] ??= {}), found);
    group[name] = valueOf(control);
  }
  return found;
}

const SWITCH = { on: true, off: false };

// Returns a setting's value by the types and words of its schema.
function valueOf(control) {
  const text = control.value.trim();
  const types = control.dataset.types.split(" ");
  if (text && control.dataset.words.split(" ").includes(text)) return text;
  if (types.includes("boolean") && text in SWITCH) return SWITCH[text];
  if (types.includes("array")) return text.split(",").map((part) => part.trim()).filter(Boolean);
  return types.includes("integer") || types.includes("number") ? numberOf(control) : control.value;
}

// An invalid number is sent as text: the service's error says what it expects.
function numberOf(control) {
  const number = Number(control.value);
  return control.value.trim() && Number.isFinite(number) ? number : control.value || "not a number";
}

function metadataOf(pairs, errors) {
  const found = new Map();
  for (const [key, value] of pairs) {
    if (!key && !value) continue;
    if (!key) errors.push({ field: "metadata", message: `the value “${value}” has no key` });
    else if (found.has(key)) errors.push({ field: "metadata", message: `the key “${key}” is there twice` });
    else found.set(key, value);
  }
  return Object.fromEntries(found);
}
