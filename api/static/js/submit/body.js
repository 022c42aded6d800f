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
  body.method = value("method");
  const policy = policyOf(value("policy"), value("policy-json"), errors);
  if (policy !== undefined) body.policy = policy;
  if (value("zone")) body.zone = value("zone");
  const deadline = form.elements.deadline;
  if (deadline.validity.badInput) errors.push({ field: "deadline", message: "expected a date and a time" });
  // To the minute, in UTC.
  else if (deadline.value) body.deadline = `${deadline.value.slice(0, 16)}:00Z`;
  if (value("priority") || form.elements.priority.validity.badInput) body.priority = numberOf(form.elements.priority);
  const hyperparameters = {};
  for (const control of form.elements) {
    if (!control.name?.startsWith(PREFIX) || (!control.value.trim() && !control.validity.badInput)) continue;
    // A validation dataset replaces the share that is held out by default.
    if (body.validation_dataset && control.name === `${PREFIX}eval_share` && control.value === control.defaultValue) continue;
    hyperparameters[control.name.slice(PREFIX.length)] = isNumber(control) ? numberOf(control) : control.value;
  }
  body.hyperparameters = hyperparameters;
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

const isNumber = (control) => control.type === "number" || "number" in control.dataset;

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
