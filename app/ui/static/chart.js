/* Building blocks of the memory chart: kinds of memory, SVG nodes, and formats of sizes and times. */
import { element } from "./core.js";

export const NS = "http://www.w3.org/2000/svg",
  LEFT = 52,
  BOTTOM = 18,
  TOP = 22,
  RIGHT = 2;
export const KINDS = ["weights", "kv", "hidden", "activations", "rest", "others"];
export const svg = (tag, attributes = {}, text) => {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
};
export const size = (mib) =>
  mib >= 1024 ? `${(mib / 1024).toFixed(mib >= 10240 ? 0 : 1)} GiB` : `${Math.round(mib)} MiB`;
export const duration = (value) => {
  const whole = Math.round(value);
  return whole < 100
    ? `${value < 9.95 ? value.toFixed(1) : whole} s`
    : `${Math.floor(whole / 60)} min ${whole % 60} s`;
};
// Grid steps are round: powers of two below a GiB; 1, 2 or 5 times a power of ten above it.
export const step = (most, count) => {
  const raw = most / count;
  if (raw < 1024) return 2 ** Math.ceil(Math.log2(raw));
  const base = 1024 * 10 ** Math.floor(Math.log10(raw / 1024));
  return base * [1, 2, 5, 10].find((n) => n * base >= raw);
};

/* Creates a chart. Later draws only update its paths. */
export const chart = (key, title) => {
  const root = svg("svg", { class: "chart", role: "img", tabindex: 0, "data-key": key });
  const defs = svg("defs");
  // Each kind has its own hatching, so that the chart is readable without colour.
  const hatch = {
    kv: "M0 6L6 0",
    hidden: "M0 0L6 6",
    activations: "M3 0V6",
    rest: "M0 3H6",
    others: "M0 0L6 6M0 6L6 0",
  };
  for (const [kind, path] of Object.entries(hatch)) {
    const pattern = svg("pattern", {
      id: `hatch-${key}-${kind}`,
      width: 6,
      height: 6,
      patternUnits: "userSpaceOnUse",
    });
    pattern.append(svg("path", { d: path, class: "hatch" }));
    defs.append(pattern);
  }
  const grid = svg("g", { class: "grid" }),
    phases = svg("g", { class: "phases" }),
    areas = svg("g"),
    over = svg("g", { class: "over" });
  const paths = {};
  for (const kind of KINDS) {
    paths[kind] = [
      svg("path", { class: `area ${kind}` }),
      svg("path", { class: "texture", fill: `url(#hatch-${key}-${kind})` }),
    ];
    areas.append(...paths[kind]);
  }
  root.append(defs, phases, areas, grid, over);
  const caption = element("div", "caption"),
    tip = element("div", "tip"),
    figure = element("figure");
  tip.hidden = true;
  caption.append(element("b"), element("span"));
  figure.append(caption, root, tip);
  return { key, title, root, grid, phases, paths, over, tip, figure, caption };
};
