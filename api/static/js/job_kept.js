// What a reload would lose, kept for this job while its tab is open: what is unfolded, and how far it is scrolled.

export function keepOpened(job) {
  const key = `opened ${job}`;
  const opened = new Set(JSON.parse(sessionStorage.getItem(key) ?? "[]"));

  const open = () => {
    for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  };
  // "toggle" does not bubble, and what is unfolded may be renewed.
  document.addEventListener(
    "toggle",
    ({ target }) => {
      if (!target.matches?.("details[id]") || !target.isConnected) return;
      if (target.open) opened.add(target.id);
      else opened.delete(target.id);
      sessionStorage.setItem(key, JSON.stringify([...opened]));
    },
    true,
  );
  document.addEventListener("live", open);
  open();
}

const SETTLED_MS = 3_000;
const HANDS = ["wheel", "touchmove", "keydown", "pointerdown"];

// A browser scrolls back before the charts are there, and then keeps what is in view where it is. So it is done again
// while the page grows, until somebody lays a hand on it.
export function keepScroll(job) {
  const key = `scroll ${job}`;
  addEventListener("pagehide", () => sessionStorage.setItem(key, String(scrollY)));
  const wanted = Number(sessionStorage.getItem(key));
  const [navigation] = performance.getEntriesByType("navigation");
  const asked = document.getElementById(location.hash.slice(1)); // a hash may be the range of the chart, too
  if (!wanted || navigation?.type === "navigate" || asked) return;

  const grown = new ResizeObserver(() => scrollTo(0, wanted));
  const done = () => {
    grown.disconnect();
    for (const type of HANDS) removeEventListener(type, done);
  };
  for (const type of HANDS) addEventListener(type, done, { passive: true });
  grown.observe(document.body);
  addEventListener("load", () => setTimeout(done, SETTLED_MS));
}
