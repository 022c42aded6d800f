// Renews the parts of a page that the server marks with `data-live` and an id, as long as the body has
// `data-poll-seconds`.
//
// The page itself is fetched again with its ETag, and is mostly unchanged. Unfolded details, scroll positions and the focus
// are kept; a part in which text is being selected or written is renewed the next time.
// Dispatches the event "live" on `document` (detail: the ids of the parts that changed).

import { poll } from "./poll.js";

const secondsOf = (page) => Number(page.body.dataset.pollSeconds) || null;
// HTML by id as the server last sent it: scripts may have changed the page's.
const sent = new Map();
for (const part of document.querySelectorAll("[data-live]")) sent.set(part.id, part.innerHTML);

async function renewOnce() {
  const address = location.pathname + location.search;
  const response = await fetch(address, {
    cache: "no-cache",
    headers: { Accept: "text/html" },
  });
  if (response.redirected || response.status === 401) {
    location.reload(); // signed out: the sign-in page leads back here
    return null;
  }
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  // Another filter was chosen meanwhile: `renew` fetches its page.
  if (address !== location.pathname + location.search) return 0;
  const changed = [];
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    if (next === null || sent.get(part.id) === next.innerHTML || isInUse(part)) continue;
    sent.set(part.id, next.innerHTML);
    replace(part, next);
    changed.push(part.id);
  }
  const next = secondsOf(fresh);
  if (next === null) delete document.body.dataset.pollSeconds;
  else document.body.dataset.pollSeconds = String(next);
  document.title = fresh.title;
  if (changed.length) document.dispatchEvent(new CustomEvent("live", { detail: changed }));
  return next === null ? null : next * 1000;
}

function isInUse(part) {
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && part.contains(selection.anchorNode)) return true;
  return part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea");
}

function replace(part, next) {
  const opened = [...part.querySelectorAll("details[open][id]")].map((element) => element.id);
  const scrolled = [...part.querySelectorAll(".wide")].map((element) => element.scrollLeft);
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const again = focused && (focused.id ? `#${CSS.escape(focused.id)}` : focused.href && `a[href="${CSS.escape(focused.getAttribute("href"))}"]`);
  part.replaceChildren(...next.cloneNode(true).childNodes);
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  [...part.querySelectorAll(".wide")].forEach((element, index) => {
    element.scrollLeft = scrolled[index] ?? 0;
  });
  if (again) part.querySelector(again)?.focus({ preventScroll: true });
}

const first = secondsOf(document);
let again = first === null ? null : poll(renewOnce, first * 1000);

// Renews the page at once, as after an action; restarts polling where it had ended.
export function renew() {
  if (again) again();
  else again = poll(renewOnce, 0);
}
