// Reads and writes the value at a path such as "steps[1].rho", the form in which problems name fields.

const parts = (path) => path.split(/[.[\]]+/).filter(Boolean).map((part) => (/^\d+$/.test(part) ? Number(part) : part));

// Returns the value at the path, undefined where there is none.
export function read(body, path) {
  return parts(path).reduce((value, part) => (value !== null && typeof value === "object" ? value[part] : undefined), body);
}

// Returns a copy with `value` at the path; undefined removes the value there. Missing objects along the path are created
// as copies of `absent`.
export function written(body, path, value, absent = {}) {
  const copy = structuredClone(body);
  const way = parts(path);
  const last = way.pop();
  let place = copy;
  for (const part of way) {
    if (place[part] === null || typeof place[part] !== "object") place[part] = structuredClone(absent);
    place = place[part];
  }
  if (value === undefined) delete place[last];
  else place[last] = value;
  return copy;
}

// Whether two bodies are equal, regardless of the order of keys.
export const same = (one, other) => JSON.stringify(ordered(one)) === JSON.stringify(ordered(other));

function ordered(value) {
  if (Array.isArray(value)) return value.map(ordered);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, ordered(value[key])]));
}
