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

// A browser scrolls back before the charts are there: it is done again until the page has its height.
export function keepScroll(job) {
  const key = `scroll ${job}`;
  addEventListener("pagehide", () => sessionStorage.setItem(key, String(scrollY)));
  const wanted = Number(sessionStorage.getItem(key));
  const [navigation] = performance.getEntriesByType("navigation");
  if (!wanted || navigation?.type === "navigate" || location.hash) return;
  const grown = new ResizeObserver(() => {
    if (scrollY !== wanted) scrollTo(0, wanted);
    if (Math.abs(scrollY - wanted) < 2) done();
  });
  const done = () => {
    grown.disconnect();
    for (const type of ["wheel", "touchmove", "keydown", "pointerdown"]) removeEventListener(type, done);
  };
  for (const type of ["wheel", "touchmove", "keydown", "pointerdown"]) addEventListener(type, done, { passive: true });
  grown.observe(document.body);
  setTimeout(done, 5000);
}
