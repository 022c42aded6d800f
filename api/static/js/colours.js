// The page's colours for a canvas, which supports neither CSS variables nor light-dark().

const probe = Object.assign(document.createElement("span"), { hidden: true });
document.body.append(probe);
const known = new Map();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => known.clear());

// Returns the colour of a variable such as "--green" in the current scheme.
export function colour(name) {
  if (!known.has(name)) {
    probe.style.color = `var(${name})`;
    known.set(name, getComputedStyle(probe).color);
  }
  return known.get(name);
}
