// The folded table below a chart: its data as figures, to be read by a screen reader or copied.

const MOST_ROWS = 500;

// `columns`: [{label, text(row)}]; `rows()` returns the rows, and is called only while the table is open.
export function dataTable(place, caption, columns, rows) {
  const details = Object.assign(document.createElement("details"), { className: "data-table" });
  details.append(Object.assign(document.createElement("summary"), { textContent: `${caption}: the data as a table` }));
  place.append(details);

  function fill() {
    if (!details.open) return;
    const all = rows();
    const table = document.createElement("table");
    const note = all.length > MOST_ROWS ? `, the first ${MOST_ROWS} of ${all.length} rows` : "";
    table.createCaption().textContent = caption + note;
    const head = table.createTHead().insertRow();
    for (const column of columns) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = column.label;
      head.append(cell);
    }
    const body = table.createTBody();
    for (const row of all.slice(0, MOST_ROWS)) {
      const line = body.insertRow();
      for (const column of columns) line.insertCell().textContent = column.text(row);
    }
    const wide = Object.assign(document.createElement("div"), { className: "wide", tabIndex: 0 });
    wide.setAttribute("role", "region");
    wide.setAttribute("aria-label", caption);
    wide.append(table);
    details.querySelector(".wide")?.remove();
    details.append(wide);
  }

  details.addEventListener("toggle", fill);
  return { renew: fill };
}
