// The folded table below a chart: its data as figures, to be read by a screen reader or copied.

import { element, header, wide } from "./dom.js";

const MOST_ROWS = 500;

// `columns`: [{label, text(row)}]; `rows()` returns the rows, and is called only while the table is open.
export function dataTable(place, caption, columns, rows) {
  const summary = element("summary", { textContent: `${caption}: the data as a table` });
  const details = element("details", { className: "data-table" }, summary);
  place.append(details);

  function renew() {
    if (!details.open) return;
    const all = rows();
    const table = element("table");
    const note = all.length > MOST_ROWS ? `, the first ${MOST_ROWS} of ${all.length} rows` : "";
    table.createCaption().textContent = caption + note;
    table.createTHead().insertRow().append(...columns.map(({ label }) => header("col", label)));
    const body = table.createTBody();
    for (const row of all.slice(0, MOST_ROWS)) {
      const line = body.insertRow();
      for (const column of columns) line.insertCell().textContent = column.text(row);
    }
    details.querySelector(".wide")?.remove();
    details.append(wide(caption, table));
  }

  details.addEventListener("toggle", renew);
  return { renew };
}
