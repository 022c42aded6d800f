// Says something to people who use a screen reader, without moving their focus.

export function announce(text) {
  const place = document.getElementById("announcement");
  // The same text twice is only said twice where it was gone in between.
  place.textContent = "";
  requestAnimationFrame(() => {
    place.textContent = text;
  });
}

// Says whether the service answers, where everybody sees it.
export function connection(lost) {
  const place = document.getElementById("connection");
  if (place.hidden !== lost) return;
  place.textContent = lost ? "No answer from the service: trying again." : "";
  place.hidden = !lost;
}
