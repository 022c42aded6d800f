// What part of a job's time is shown, in the page's address, so that it outlives a reload and can be sent to others.

const iso = (seconds) => new Date(seconds * 1000).toISOString();

// [from, to] in seconds since 1970, null where the address says nothing, or no times.
export function zoomOf(hash) {
  const asked = new URLSearchParams(hash.replace(/^#/, ""));
  const range = ["from", "to"].map((name) => Date.parse(asked.get(name)) / 1000);
  return range.every(Number.isFinite) && range[0] < range[1] ? range : null;
}

// Leaves an address alone that has another use of its hash.
export function keepZoom(range) {
  if (!range && !zoomOf(location.hash)) return;
  const hash = range ? `#from=${iso(range[0])}&to=${iso(range[1])}` : "";
  history.replaceState(history.state, "", location.pathname + location.search + hash);
}
