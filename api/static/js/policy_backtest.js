// The result of a backtest: bars, and the same figures as a table.

import { dataOf } from "./policy_figures.js";
import { minute, number, percent } from "./format.js";
import { bars } from "./policy_bars.js";

export function policyBacktest(place, labels) {
  if (!place) return null;

  function show({ stored, edited }) {
    const answer = edited ?? stored;
    place.replaceChildren(bars({ stored, edited, labels: labels() }), table({ stored, edited }), basis(answer));
  }

  function table({ stored, edited }) {
    const names = labels();
    const shown = [stored && [names.stored, stored], edited && [names.edited, edited]].filter(Boolean);
    const figures = document.createElement("table");
    figures.className = "compared";
    figures.createCaption().textContent = `Means over ${number(shown[0][1].starts, 9)} starts, one at each full hour; in brackets the 5th to the 95th percentile.`;
    const head = figures.createTHead().insertRow();
    for (const text of ["", ...shown.map(([name]) => name), ...(shown.length > 1 ? ["change"] : [])]) head.append(header(text, "col"));
    const body = figures.createTBody();
    for (const { label, value, spread, change } of dataOf()) {
      const row = body.insertRow();
      row.append(header(label, "row"));
      for (const [, answer] of shown) {
        const cell = row.insertCell();
        cell.className = "figure";
        cell.textContent = value(answer);
        if (spread && answer.spread) cell.append(Object.assign(document.createElement("div"), { className: "reason", textContent: spread(answer) }));
      }
      if (shown.length > 1) Object.assign(row.insertCell(), { className: "figure", textContent: change(stored, edited) });
    }
    const wide = Object.assign(document.createElement("div"), { className: "wide", tabIndex: 0 });
    wide.setAttribute("role", "region");
    wide.setAttribute("aria-label", "Figures of the backtest");
    wide.append(figures);
    return wide;
  }

  function header(text, scope) {
    const cell = Object.assign(document.createElement("th"), { scope, textContent: text });
    if (scope === "col" && text) cell.className = "figure";
    return cell;
  }

  function basis({ basis: on }) {
    const part = document.createElement("div");
    part.className = "reason";
    const estimated = on.estimated_readings ? `, ${on.estimated_readings} of them estimates` : "";
    const gaps = on.covered_share < 1 ? `, which cover ${percent(on.covered_share)} of that time` : "";
    const text = `On ${on.readings} stored readings of ${on.zone} (${on.sources.join(", ")}; ${on.signal})${estimated}${gaps}, ${minute(on.from)} to ${minute(on.to)} UTC. It is assumed that:`;
    const list = document.createElement("ul");
    for (const assumption of on.assumptions) list.append(Object.assign(document.createElement("li"), { textContent: assumption }));
    part.append(Object.assign(document.createElement("p"), { textContent: text }), list);
    return part;
  }

  return {
    show,
    busy(is) {
      if (is) place.setAttribute("aria-busy", "true");
      else place.removeAttribute("aria-busy");
    },
  };
}
