// Announcements to screen readers, and the banner of a lost connection.

// Has a screen reader say a text without moving the focus.

export function announce(text) {
  const place = document.getElementById("announcement");
  // The same text is said again only if it was removed in between.
  place.textContent = "";
  requestAnimationFrame(() => {
    place.textContent = text;
  });
}

// Shows a banner while the service does not answer.
export function connection(lost) {
  const place = document.getElementById("connection");
  if (place.hidden !== lost) return;
  place.textContent = lost ? "The service does not answer: trying again." : "";
  place.hidden = !lost;
}
