// Long tables: live.js renews the newest rows, older ones are fetched and kept.

import { announce } from "../announce.js";

// `name`: of the table (`data-growing`) and of the link to its older rows (`data-older`); `rows`: id of the part that is
// renewed. Rows that a renewal removes from that part are kept below it.
export function growing(name, rows) {
  const newest = document.getElementById(rows);
  const older = document.getElementById(`${rows}-older`);
  const link = document.querySelector(`[data-older="${name}"]`);
  let held = rowsOf(newest);

  document.addEventListener("live", (event) => {
    if (!event.detail.includes(rows)) return;
    const shown = new Set(rowsOf(newest).map((row) => row.dataset.row));
    const pushedOut = held.filter((row) => !shown.has(row.dataset.row));
    // Where no row shown is left, rows in between may be missing.
    if (pushedOut.length && pushedOut.length === held.length) older.replaceChildren();
    else older.prepend(...pushedOut);
    held = rowsOf(newest);
  });

  link?.addEventListener("click", async (event) => {
    event.preventDefault();
    if (link.getAttribute("aria-busy") === "true") return;
    link.setAttribute("aria-busy", "true");
    try {
      await fetchOlder();
    } catch (error) {
      announce(`The older ${name} could not be fetched: ${error.message}`);
      console.info("older rows", String(error));
    } finally {
      link.removeAttribute("aria-busy");
    }
  });

  async function fetchOlder() {
    const last = [...rowsOf(newest), ...rowsOf(older)].at(-1);
    const address = new URL(link.href);
    address.searchParams.set("after", last.dataset.row);
    const answer = await fetch(address, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fetched = rowsOf(page.getElementById(rows));
    older.append(...fetched);
    announce(`${fetched.length} older ${name}`);
    if (page.querySelector(`[data-older="${name}"]`)) return;
    const table = link.closest("p").previousElementSibling;
    link.closest("p").remove();
    table.focus({ preventScroll: true });
  }
}

const rowsOf = (body) => [...body.querySelectorAll("tr[data-row]")];
