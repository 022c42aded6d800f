// Reads and writes what a path such as "steps[1].rho" names, as problems name fields.

const parts = (path) => path.split(/[.[\]]+/).filter(Boolean).map((part) => (/^\d+$/.test(part) ? Number(part) : part));

// Undefined where there is nothing.
export function read(body, path) {
  return parts(path).reduce((value, part) => (value !== null && typeof value === "object" ? value[part] : undefined), body);
}

// A copy in which `value` stands at the path; undefined takes away what stands there. Objects on the way that are missing
// begin as `absent`.
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

// Whether two bodies say the same, in whatever order.
export const same = (one, other) => JSON.stringify(ordered(one)) === JSON.stringify(ordered(other));

function ordered(value) {
  if (Array.isArray(value)) return value.map(ordered);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, ordered(value[key])]));
}
