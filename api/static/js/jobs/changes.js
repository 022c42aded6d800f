// Announces once each change of a job's status while the page is open.

import { announce } from "../announce.js";

const MOST = 3;
let known = statuses();

function statuses() {
  return new Map([...document.querySelectorAll("tr[data-job]")].map((row) => [row.dataset.job, row.dataset.status]));
}

document.addEventListener("live", (event) => {
  if (!event.detail.includes("jobs")) return;
  const now = statuses();
  const changed = [...now].filter(([job, status]) => known.has(job) && known.get(job) !== status);
  // After a change of the filter, statuses of jobs that were not shown are out of date.
  if (event.detail.includes("conditions")) changed.length = 0;
  known = now;
  if (changed.length === 0) return;
  const said = changed.slice(0, MOST).map(([job, status]) => `Job ending in ${job.slice(-8)} is ${status}`);
  if (changed.length > MOST) said.push(`and ${changed.length - MOST} more jobs changed`);
  announce(said.join(", "));
});
