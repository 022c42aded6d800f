// Page state that survives a reload in the same tab, kept by job: unfolded details, and the scroll position.

export function keepOpened(job) {
  const key = `opened ${job}`;
  const opened = new Set(JSON.parse(sessionStorage.getItem(key) ?? "[]"));

  const open = () => {
    for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  };
  // On the document, as renewed elements lose their listeners; capturing, as "toggle" does not bubble.
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

// A browser restores the scroll position before the charts are drawn, which then move the content. So it is restored again
// while the page grows, until the user scrolls, types or clicks.
export function keepScroll(job) {
  const key = `scroll ${job}`;
  addEventListener("pagehide", () => sessionStorage.setItem(key, String(scrollY)));
  const wanted = Number(sessionStorage.getItem(key));
  const [navigation] = performance.getEntriesByType("navigation");
  const asked = document.getElementById(location.hash.slice(1)); // the hash may also be the chart's range
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
