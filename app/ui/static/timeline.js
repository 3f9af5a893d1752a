/* Memory over the run: a stacked area each for GPU and machine, drawn from points of the stream.
   Areas differ by pattern and label as well as by colour; pointer and arrow keys read the numbers. */
import { $, element, on, setText } from "./core.js";
import * as words from "./wording.js";

const NS = "http://www.w3.org/2000/svg", MOST = 600, LEFT = 44, BOTTOM = 18, TOP = 8, RIGHT = 6;
const KINDS = ["weights", "kv", "activations", "rest", "others"];
let lines = {}, points = [], marks = [], cursor = null;

const svg = (tag, attributes = {}, text) => {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
};
const size = (mib) => (mib >= 1024 ? `${(mib / 1024).toFixed(mib >= 10240 ? 0 : 1)} GiB` : `${Math.round(mib)} MiB`);
const seconds = (value) => (value < 100 ? `${value.toFixed(value < 10 ? 1 : 0)} s` : `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`);
// Steps of 1, 2 or 5 times a power of two or ten, so that a scale has few and round lines.
const step = (most, count) => {
  const raw = most / count, unit = raw >= 512 ? 1024 : 1, base = 10 ** Math.floor(Math.log10(raw / unit));
  return unit * base * [1, 2, 5, 10].find((n) => n * base * unit >= raw);
};

/* One chart is made once and only its paths are set anew. */
const chart = (key, title) => {
  const root = svg("svg", { class: "chart", role: "img", tabindex: 0, "data-key": key });
  const defs = svg("defs");
  // Readable without colour: each kind has a hatching of its own.
  const hatch = { kv: "M0 6L6 0", activations: "M3 0V6", rest: "M0 3H6", others: "M0 0L6 6M0 6L6 0" };
  for (const [kind, path] of Object.entries(hatch)) {
    const pattern = svg("pattern", { id: `hatch-${key}-${kind}`, width: 6, height: 6, patternUnits: "userSpaceOnUse" });
    pattern.append(svg("path", { d: path, class: "hatch" }));
    defs.append(pattern);
  }
  const grid = svg("g", { class: "grid" }), phases = svg("g", { class: "phases" }), areas = svg("g"), over = svg("g", { class: "over" });
  const paths = {};
  for (const kind of KINDS) {
    paths[kind] = [svg("path", { class: `area ${kind}` }), svg("path", { class: "texture", fill: `url(#hatch-${key}-${kind})` })];
    areas.append(...paths[kind]);
  }
  root.append(defs, phases, areas, grid, over);
  const caption = element("div", "caption", title), tip = element("div", "tip"), figure = element("figure");
  tip.hidden = true;
  figure.append(caption, root, tip);
  return { key, root, grid, phases, paths, over, tip, figure, caption };
};
let charts = [];

const values = (point, key) => (key === "device" ? point[3] : point[4]);
const PHASES = { waiting: "", reading: words.READING, answering: words.ANSWERING, idle: "" };

const draw = (one) => {
  const width = Math.max(200, one.root.clientWidth), height = Math.max(80, one.root.clientHeight);
  const right = width - RIGHT, bottom = height - BOTTOM;
  const end = Math.max(1, points.at(-1)[0]);
  const stacks = points.map((point) => values(point, one.key).reduce((sums, value) => [...sums, sums.at(-1) + value], [0]));
  // Other programs are told by number and fill what is left above: the scale is that of our own.
  const peak = Math.max(...stacks.map((sums) => sums[Math.min(4, sums.length - 1)]));
  const isMain = one.key === (lines.device_name ? "device" : "host");
  // Plain transformers needs its program, too: everything but weights, KV and activations.
  const program = values(points.at(-1), one.key)[3] ?? 0;
  const standard = isMain && lines.standard ? lines.standard + program : null;
  const limit = one.key === "device" ? lines.device_limit : lines.host_limit;
  const most = 1.12 * Math.max(peak, standard ?? 0, 64), shown = Math.min(most, Math.max(limit * 1.05, peak * 1.12));
  const top = standard && standard > limit ? most : shown;
  const x = (t) => LEFT + (right - LEFT) * t / end, y = (v) => Math.max(TOP, bottom - (bottom - TOP) * v / top);
  one.scale = { x, y, end, right };
  KINDS.forEach((kind, index) => {
    const has = values(points[0], one.key).length > index;
    let d = "";
    if (has) {
      d = points.map((point, n) => `${n ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(stacks[n][index + 1]).toFixed(1)}`).join("")
        + points.map((point, n) => [point, n]).reverse().map(([point, n]) => `L${x(point[0]).toFixed(1)} ${y(stacks[n][index]).toFixed(1)}`).join("") + "Z";
    }
    for (const path of one.paths[kind]) path.setAttribute("d", d);
  });
  // The scale, the phases, and the lines that tell why it fits.
  const grid = [], gap = step(top, 4);
  for (let v = 0; v <= top; v += gap) {
    grid.push(svg("line", { x1: LEFT, x2: right, y1: y(v), y2: y(v) }), svg("text", { x: LEFT - 5, y: y(v) + 3.5, "text-anchor": "end" }, v ? size(v) : "0"));
  }
  grid.push(svg("text", { x: right, y: height - 4, "text-anchor": "end" }, seconds(end)), svg("text", { x: LEFT, y: height - 4 }, "0 s"));
  one.grid.replaceChildren(...grid);
  const phases = [];
  let from = 0;
  points.forEach((point, n) => {
    if (n && points[n - 1][1] === point[1] && n + 1 < points.length) return;
    if (n) {
      const name = points[n - 1][1], [a, b] = [x(points[from][0]), x(point[0])];
      if (PHASES[name]) {
        phases.push(svg("rect", { class: name, x: a, y: TOP, width: Math.max(0, b - a), height: bottom - TOP }));
        if (b - a > 52) phases.push(svg("text", { x: (a + b) / 2, y: TOP + 10, "text-anchor": "middle" }, PHASES[name]));
      }
      from = n;
    }
  });
  one.phases.replaceChildren(...phases);
  const over = [], level = (value, name, text, above) => {
    if (!value || value > top) return;
    over.push(svg("line", { class: name, x1: LEFT, x2: right, y1: y(value), y2: y(value) }),
      svg("text", { class: name, x: right - 2, y: y(value) + (above ? -4 : 11), "text-anchor": "end" }, text));
  };
  level(peak, "peak", words.peak(size(peak)), false);
  level(standard, "standard", words.standard(size(standard ?? 0)), true);
  level(limit, "limit", words.limit(size(limit)), true);
  for (const [at] of marks) over.push(svg("path", { class: "mark", d: `M${x(at)} ${TOP}v${bottom - TOP}` }));
  if (cursor !== null) {
    const at = x(points[cursor][0]);
    over.push(svg("line", { class: "cursor", x1: at, x2: at, y1: TOP, y2: bottom }));
  }
  one.over.replaceChildren(...over);
  one.summary = words.timeline(one.caption.textContent, size(peak), standard ? size(standard) : "", size(limit), seconds(end));
};

const tell = (one) => {
  one.tip.hidden = cursor === null;
  if (cursor === null) return;
  const point = points[cursor], list = values(point, one.key);
  const rows = [[seconds(point[0]), point[1] === "reading" ? words.layer(point[2]) : PHASES[point[1]] || ""]];
  KINDS.forEach((kind, n) => { if (list[n] !== undefined) rows.push([words.KINDS[kind], size(list[n])]); });
  if (point[5]) rows.push([words.DISK, size(point[5])]);
  one.tip.replaceChildren(...rows.map(([name, value]) => {
    const row = element("div");
    row.append(element("span", "", name), element("b", "", value));
    return row;
  }));
  const at = one.scale.x(point[0]);
  one.tip.style.left = at > one.scale.right / 2 ? "auto" : `${at + 8}px`;
  one.tip.style.right = at > one.scale.right / 2 ? `${one.root.clientWidth - at + 8}px` : "auto";
};

let announced = 0;
const paint = () => {
  const box = $("#timeline .card");
  box.classList.toggle("empty", !points.length);
  if (!points.length) return;
  for (const one of charts) { draw(one); tell(one); }
  $(".marks", box).replaceChildren(...marks.map(([at, text]) => element("li", "", `${seconds(at)}: ${text}`)));
  // A label that changes twice a second would be noise.
  if (Date.now() - announced > 5000) {
    announced = Date.now();
    for (const one of charts) one.root.setAttribute("aria-label", one.summary);
  }
};

const begin = (news) => {
  lines = news; points = []; marks = []; cursor = null; announced = 0;
  charts = lines.device_name ? [chart("device", words.GPU), chart("host", words.MACHINE)] : [chart("host", words.MACHINE)];
  $("#timeline .charts").replaceChildren(...charts.map((one) => one.figure));
  $("#timeline .legend").replaceChildren(...KINDS.map((kind) => {
    const item = element("li", kind);
    item.append(element("i"), words.KINDS[kind]);
    return item;
  }));
  for (const one of charts) {
    one.root.addEventListener("pointermove", (e) => {
      if (!points.length) return;
      const t = (e.offsetX - LEFT) / Math.max(1, one.scale.right - LEFT) * one.scale.end;
      look(points.reduce((best, point, n) => (Math.abs(point[0] - t) < Math.abs(points[best][0] - t) ? n : best), 0));
    });
    one.root.addEventListener("pointerleave", () => look(null));
    one.root.addEventListener("blur", () => look(null));
    one.root.addEventListener("keydown", (e) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -MOST, End: MOST }[e.key];
      if (move === undefined || !points.length) return;
      e.preventDefault();
      look(Math.min(points.length - 1, Math.max(0, (cursor ?? points.length - 1) + move)));
    });
  }
  paint();
};
const look = (n) => { cursor = n; if (points.length) paint(); };

// What a person takes with them.
const download = (name, blob) => {
  const link = element("a");
  link.href = URL.createObjectURL(blob); link.download = name; link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
};
const csv = () => {
  const head = ["seconds", "phase", "layer", ...["device", "host"].flatMap((tier) => KINDS.filter((kind) => tier === "host" || kind !== "others").map((kind) => `${tier}_${kind}_mib`)), "disk_mib"];
  const rows = points.map(([at, phase, layer, device, host, disk]) => [at, phase, layer, ...[0, 1, 2, 3].map((n) => device[n] ?? ""), ...host, disk]);
  return [head, ...rows].map((row) => row.join(",")).join("\n") + "\n";
};
const png = async () => {
  const scale = 2, gap = 26, width = charts[0].root.clientWidth, heights = charts.map((one) => one.root.clientHeight + gap);
  const canvas = element("canvas"), context = canvas.getContext("2d");
  canvas.width = scale * width; canvas.height = scale * heights.reduce((a, b) => a + b, 0);
  context.scale(scale, scale);
  const style = getComputedStyle($("#timeline .card"));
  context.fillStyle = style.backgroundColor; context.fillRect(0, 0, width, canvas.height);
  let top = 0;
  for (const [n, one] of charts.entries()) {
    const copy = one.root.cloneNode(true), nodes = copy.querySelectorAll("*");
    // A picture has no style sheet: what is seen is written into it.
    one.root.querySelectorAll("*").forEach((node, i) => {
      const seen = getComputedStyle(node);
      for (const name of ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-family"]) if (!(name === "fill" && node.classList.contains("texture"))) nodes[i].style.setProperty(name, seen.getPropertyValue(name));
    });
    copy.setAttribute("width", width); copy.setAttribute("height", heights[n] - gap); copy.setAttribute("xmlns", NS);
    const image = new Image();
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(new XMLSerializer().serializeToString(copy));
    await image.decode();
    context.fillStyle = style.color; context.font = "600 12px system-ui, sans-serif";
    context.fillText(one.caption.textContent, LEFT, top + 17);
    context.drawImage(image, 0, top + gap);
    top += heights[n];
  }
  canvas.toBlob((blob) => download("memory.png", blob), "image/png");
};
const wide = (is) => {
  $("#timeline").classList.toggle("wide", is);
  $("#timeline [data-act=wide]").setAttribute("aria-pressed", String(is));
  if (points.length) paint();
};

export const start = () => {
  on("timeline", begin);
  on("points", (news) => {
    points.push(...news.points); marks = news.marks;
    while (points.length > MOST) points = points.filter((_, n) => n % 2 === 0);
    paint();
  });
  $("#timeline [data-act=csv]").onclick = () => { if (points.length) download("memory.csv", new Blob([csv()], { type: "text/csv" })); };
  $("#timeline [data-act=png]").onclick = () => { if (points.length) png(); };
  $("#timeline [data-act=wide]").onclick = () => wide(!$("#timeline").classList.contains("wide"));
  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape" && $("#timeline.wide")) { e.preventDefault(); e.stopImmediatePropagation(); wide(false); }
  }, true);
  new ResizeObserver(() => { if (points.length) paint(); }).observe($("#timeline .charts"));
};
