// The result of a backtest: bars, and the same figures as a table.

import { element, header, setFlag, wide } from "../../dom.js";
import { FIGURES } from "./figures.js";
import { minute, number, percent } from "../../format.js";
import { bars } from "./bars.js";

export function policyBacktest(place, labels) {
  if (!place) return null;

  function show({ stored, edited }) {
    const answer = edited ?? stored;
    place.replaceChildren(bars({ stored, edited, labels: labels() }), table({ stored, edited }), basis(answer));
  }

  function table({ stored, edited }) {
    const names = labels();
    const shown = [stored && [names.stored, stored], edited && [names.edited, edited]].filter(Boolean);
    const figures = element("table", { className: "compared" });
    figures.createCaption().textContent = `Means over ${number(shown[0][1].starts, 9)} starts, one at each full hour; in brackets the 5th to the 95th percentile.`;
    const heads = [...shown.map(([name]) => name), ...(shown.length > 1 ? ["change"] : [])];
    figures.createTHead().insertRow().append(header("col", ""), ...heads.map((text) => header("col", text, "figure")));
    const body = figures.createTBody();
    for (const { label, value, spread, change } of FIGURES) {
      const row = body.insertRow();
      row.append(header("row", label));
      for (const [, answer] of shown) {
        const below = spread && answer.spread ? [element("div", { className: "reason" }, spread(answer))] : [];
        row.append(element("td", { className: "figure" }, value(answer), ...below));
      }
      if (shown.length > 1) row.append(element("td", { className: "figure" }, change(stored, edited)));
    }
    return wide("Figures of the backtest", figures);
  }

  function basis({ basis: on }) {
    const estimated = on.estimated_readings ? `, ${on.estimated_readings} of them estimates` : "";
    const gaps = on.covered_share < 1 ? `, which cover ${percent(on.covered_share)} of that time` : "";
    const text = `On ${on.readings} stored readings of ${on.zone} (${on.sources.join(", ")}; ${on.signal})${estimated}${gaps}, ${minute(on.from)} to ${minute(on.to)} UTC. It is assumed that:`;
    const list = element("ul", {}, ...on.assumptions.map((assumption) => element("li", {}, assumption)));
    return element("div", { className: "reason" }, element("p", {}, text), list);
  }

  return {
    show,
    busy: (is) => setFlag(place, "aria-busy", is),
  };
}
