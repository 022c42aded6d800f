// What part of a job's time is shown, in the page's address, so that it outlives a reload and can be sent to others.

const iso = (seconds) => new Date(seconds * 1000).toISOString();

// [from, to] in seconds since 1970, null where the address says nothing, or no times.
export function zoomOf(hash) {
  const asked = new URLSearchParams(hash.replace(/^#/, ""));
  const range = ["from", "to"].map((name) => Date.parse(asked.get(name)) / 1000);
  return range.every(Number.isFinite) && range[0] < range[1] ? range : null;
}

const SETTLED_MS = 200;
let timer = null;

// Once a zoom has settled: browsers take no address for each step of it, and some ask for the icon again with each.
export function keepZoom(range) {
  clearTimeout(timer);
  timer = setTimeout(() => write(range), SETTLED_MS);
}

// Leaves an address alone that has another use of its hash.
function write(range) {
  if (!range && !zoomOf(location.hash)) return;
  const hash = range ? `#from=${iso(range[0])}&to=${iso(range[1])}` : "";
  history.replaceState(history.state, "", location.pathname + location.search + hash);
}
