// Says once where a job on the page now stands, when that has changed while the page was open.

import { announce } from "./announce.js";

const MOST = 3;
let known = standing();

function standing() {
  return new Map([...document.querySelectorAll("tr[data-job]")].map((row) => [row.dataset.job, row.dataset.status]));
}

document.addEventListener("live", (event) => {
  if (!event.detail.includes("jobs")) return;
  const now = standing();
  const changed = [...now].filter(([job, status]) => known.has(job) && known.get(job) !== status);
  // Of jobs that are met again behind another filter nothing was known meanwhile.
  if (event.detail.includes("conditions")) changed.length = 0;
  known = now;
  if (changed.length === 0) return;
  const said = changed.slice(0, MOST).map(([job, status]) => `Job ending in ${job.slice(-8)} is ${status}`);
  if (changed.length > MOST) said.push(`and ${changed.length - MOST} more jobs changed`);
  announce(said.join(", "));
});
