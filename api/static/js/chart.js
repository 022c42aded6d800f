// A uPlot chart in the page's colours: it fits its element, keeps its zoom when its data change, can be used by keyboard,
// and is drawn again when the colour scheme changes.
//
// `uPlot` is the global of /static/uplot/uPlot.iife.js, which the page loads before this.

import { colour } from "./colours.js";

const PAN = 0.1; // share of the range shown that an arrow key moves by

// place: an element. options:
//   label       description for a screen reader
//   height      in px
//   series      uPlot's, with `stroke` (and `fill`) as names of CSS variables such as "--green"
//   axes        uPlot's, with colours as in `series`; missing ones are the page's
//   scales      uPlot's
//   time        whether x is time, in seconds since 1970 (default true); shown in UTC
//   plugins     uPlot's
//   sync        key: charts with the same one share cursor and zoom
//   onZoom      called with [min, max], or null when everything is shown again
// Returns {setData(columns), zoom(range or null), range(), u()}.
export function chart(place, options) {
  let data = options.series.map(() => []);
  let zoomed = null;
  let plot = null;

  place.classList.add("chart");
  place.tabIndex = 0;
  place.setAttribute("role", "group");
  place.setAttribute("aria-label", `${options.label}. Arrow keys move, plus and minus zoom, 0 shows all.`);

  const coloured = (part) => {
    const result = { ...part };
    for (const key of ["stroke", "fill"]) {
      if (typeof part[key] === "string" && part[key].startsWith("--")) result[key] = colour(part[key]);
    }
    return result;
  };
  const axis = (part) => {
    const lines = { stroke: colour("--line"), width: 1 };
    return { stroke: colour("--muted"), grid: lines, ticks: lines, font: "12px system-ui, sans-serif", ...coloured(part) };
  };

  function extent() {
    const x = data[0];
    return x.length ? [x[0], x[x.length - 1]] : [null, null];
  }

  function build() {
    plot?.destroy();
    quietly(make);
    if (zoomed) show(zoomed);
  }

  function make() {
    plot = new uPlot(
      {
        width: Math.max(120, place.clientWidth),
        height: options.height ?? 200,
        ms: 1e-3,
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1e3), "Etc/UTC"),
        scales: { ...options.scales, x: { time: options.time ?? true, ...options.scales?.x } },
        axes: (options.axes ?? [{}, {}]).map(axis),
        series: options.series.map(coloured),
        legend: { show: false },
        cursor: {
          drag: { x: true, y: false, setScale: true },
          ...(options.sync ? { sync: { key: options.sync, setSeries: false } } : {}),
        },
        plugins: options.plugins ?? [],
        hooks: { setScale: [onScale] },
      },
      data,
      place,
    );
  }

  // Runs a change that is not the user's zoom. uPlot applies both in a microtask, so this one is applied by the next.
  let ours = 0;
  function quietly(change) {
    ours += 1;
    change();
    queueMicrotask(() => queueMicrotask(() => (ours -= 1)));
  }

  function onScale(u, key) {
    if (key !== "x" || ours || u.data[0].length === 0) return;
    const [first, last] = extent();
    const { min, max } = u.scales.x;
    zoomed = min <= first && max >= last ? null : [min, max];
    options.onZoom?.(zoomed);
  }

  function show(range) {
    const [first, last] = extent();
    zoomed = range;
    if (first === null) return;
    quietly(() => plot.setScale("x", range ? { min: range[0], max: range[1] } : { min: first, max: last }));
  }

  place.addEventListener("keydown", (event) => {
    const { min, max } = plot.scales.x;
    if (min === undefined || min === null || event.ctrlKey || event.metaKey || event.altKey) return;
    const width = max - min;
    const middle = (min + max) / 2;
    const moves = {
      ArrowLeft: () => [min - PAN * width, max - PAN * width],
      ArrowRight: () => [min + PAN * width, max + PAN * width],
      "+": () => [middle - width / 4, middle + width / 4],
      "-": () => [middle - width, middle + width],
      0: () => null,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    show(inside(moves[event.key]()));
    options.onZoom?.(zoomed);
  });

  // Moves and cuts a range to the data's extent; null where it is the whole.
  function inside(range) {
    const [first, last] = extent();
    if (range === null || first === null || range[1] - range[0] >= last - first) return null;
    const shift = Math.max(0, first - range[0]) - Math.max(0, range[1] - last);
    return [range[0] + shift, range[1] + shift];
  }

  new ResizeObserver(() => {
    if (plot && place.clientWidth && place.clientWidth !== plot.width) {
      plot.setSize({ width: Math.max(120, place.clientWidth), height: options.height ?? 200 });
    }
  }).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", build);
  build();

  return {
    setData(columns) {
      data = columns;
      quietly(() => plot.setData(data, zoomed === null));
      if (zoomed) {
        show(zoomed);
        plot.redraw();
      }
    },
    // Zooms to a range, moved and cut to the data's extent; null shows everything.
    zoom: (range) => show(inside(range)),
    range: () => zoomed,
    u: () => plot,
  };
}
