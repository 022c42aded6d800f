// The chart's zoom in the page's address, so that it survives a reload and can be shared.

const iso = (seconds) => new Date(seconds * 1000).toISOString();

// Returns [from, to] in seconds since 1970, null where the hash has no valid times.
export function zoomOf(hash) {
  const asked = new URLSearchParams(hash.replace(/^#/, ""));
  const range = ["from", "to"].map((name) => Date.parse(asked.get(name)) / 1000);
  return range.every(Number.isFinite) && range[0] < range[1] ? range : null;
}

// Writes a range into the hash, null to remove it; leaves a hash for another purpose unchanged.
export function keepZoom(range) {
  if (!range && !zoomOf(location.hash)) return;
  const hash = range ? `#from=${iso(range[0])}&to=${iso(range[1])}` : "";
  history.replaceState(history.state, "", location.pathname + location.search + hash);
}
