// The page's colours as a canvas takes them: it knows neither CSS variables nor light-dark().

const probe = Object.assign(document.createElement("span"), { hidden: true });
document.body.append(probe);
const known = new Map();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => known.clear());

// The colour of a variable such as "--green", in the scheme of the moment.
export function colour(name) {
  if (!known.has(name)) {
    probe.style.color = `var(${name})`;
    known.set(name, getComputedStyle(probe).color);
  }
  return known.get(name);
}
