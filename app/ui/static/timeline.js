/* Memory during a run: one stacked area chart each for GPU and machine, drawn from the stream. Areas
   differ in pattern and label as well as colour; hover or use the arrow keys for values. */
import { BOTTOM, chart, duration, KINDS, LEFT, RIGHT, size, step, svg, TOP } from "./chart.js";
import { $, element, on, setText, sum } from "./core.js";
import { csv, download, png } from "./timeline_export.js";
import * as words from "./wording.js";

const MOST = 600;
// The chart is about the model. Memory of programs is given as a number, and drawn on request.
const BESIDE = ["rest", "others"];
const undrawn = new Set(BESIDE);
let lines = {},
  points = [],
  marks = [],
  cursor = null;

let charts = [];

const values = (point, key) => (key === "device" ? point[3] : point[4]);
const PHASES = { waiting: "", reading: words.READING, answering: words.ANSWERING, idle: "" };

const isDrawn = (kind) => !undrawn.has(kind);
/* Memory of programs in one reading that is not drawn. */
const beside = (list) =>
  sum(KINDS.map((kind, n) => (BESIDE.includes(kind) && !isDrawn(kind) ? (list[n] ?? 0) : 0)));
/* The number of the reading whose time has the least `distance`. */
const nearest = (distance) =>
  points.reduce((best, [time], n) => (distance(time) < distance(points[best][0]) ? n : best), 0);
/* Puts each kind's name inside its area if it fits, so that the chart is readable without colour. */
const inside = (one, stacks, drawn) =>
  KINDS.flatMap((kind, index) => {
    const { x, y, right } = one.scale,
      text = words.KINDS[kind],
      half = 3 * text.length + 6;
    const high = (n) => y(stacks[n][index]) - y(stacks[n][index + 1]);
    const nearestTo = (at) => nearest((time) => Math.abs(x(time) - at));
    const thickest = points.reduce((best, _, n) => (high(n) > high(best) ? n : best), 0);
    // On the left, where lines have no names; if the area is too thin there, where it is thickest.
    const first = nearestTo(LEFT + (right - LEFT) / 4),
      at = x(points[high(first) > 17 ? first : thickest][0]);
    const place = Math.min(right - half, Math.max(LEFT + half, at)),
      n = nearestTo(place);
    if (!drawn[index] || !(high(n) > 17)) return [];
    return [
      svg(
        "text",
        {
          class: "kind",
          x: place,
          y: (y(stacks[n][index]) + y(stacks[n][index + 1])) / 2 + 4,
          "text-anchor": "middle",
        },
        text,
      ),
    ];
  });

/* Names the lines at the right edge, moved apart where they would overlap. */
const named = (labels, right, bottom) => {
  labels.sort((a, b) => a.at - b.at);
  let last = -Infinity;
  return labels.map(({ at, name, text }) => {
    // Above its line, or below it if another name is in the way.
    const above = Math.max(at - 4, TOP + 11);
    last = Math.min(bottom - 4, above < last + 13 ? Math.max(last + 13, at + 12) : above);
    return svg("text", { class: name, x: right - 4, y: last, "text-anchor": "end" }, text);
  });
};

const draw = (one) => {
  const width = Math.max(200, one.root.clientWidth),
    height = Math.max(80, one.root.clientHeight);
  const right = width - RIGHT,
    bottom = height - BOTTOM;
  const end = Math.max(0.1, points.at(-1)[0]);
  const drawn = KINDS.map(isDrawn);
  const stacks = points.map((point) => {
    const sums = [0];
    for (const [n, value] of values(point, one.key).entries())
      sums.push(sums[n] + (drawn[n] ? value : 0));
    return sums;
  });
  const peak = Math.max(...stacks.map((sums) => sums.at(-1)));
  const isMain = one.key === (lines.device_name ? "device" : "host");
  // Plain transformers needs this program's memory too: everything but weights, KV and activations.
  const program = isDrawn("rest")
    ? (values(points.at(-1), one.key)[KINDS.indexOf("rest")] ?? 0)
    : 0;
  const standard = isMain && lines.standard ? lines.standard + program : null;
  // Memory that is not drawn lowers the limit for the rest.
  const aside = Math.max(...points.map((point) => beside(values(point, one.key))));
  const limit = (one.key === "device" ? lines.device_limit : lines.host_limit) - aside;
  const most = Math.max(peak, standard ?? 0, 64);
  const top = 1.12 * (limit < 1.8 * most ? Math.max(most, limit) : most);
  const x = (t) => LEFT + ((right - LEFT) * t) / end,
    y = (v) => bottom - ((bottom - TOP) * v) / top;
  one.scale = { x, y, end, right };
  KINDS.forEach((kind, index) => {
    const has = drawn[index] && values(points[0], one.key).length > index;
    let d = "";
    if (has) {
      d =
        points
          .map(
            (point, n) =>
              `${n ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(stacks[n][index + 1]).toFixed(1)}`,
          )
          .join("") +
        points
          .map((point, n) => [point, n])
          .reverse()
          .map(([point, n]) => `L${x(point[0]).toFixed(1)} ${y(stacks[n][index]).toFixed(1)}`)
          .join("") +
        "Z";
    }
    for (const path of one.paths[kind]) path.setAttribute("d", d);
  });
  // The scale, the phases, and the lines that show why it fits.
  const grid = [],
    gap = step(top, 4);
  for (let v = 0; v <= top; v += gap) {
    grid.push(
      svg("line", { x1: LEFT, x2: right, y1: y(v), y2: y(v) }),
      svg("text", { x: LEFT - 5, y: y(v) + 3.5, "text-anchor": "end" }, v ? size(v) : "0"),
    );
  }
  grid.push(
    svg("text", { x: right, y: height - 4, "text-anchor": "end" }, duration(end)),
    svg("text", { x: LEFT, y: height - 4 }, "0 s"),
  );
  one.grid.replaceChildren(...grid);
  const phases = [];
  let from = 0;
  points.forEach((point, n) => {
    if (n && points[n - 1][1] === point[1] && n + 1 < points.length) return;
    if (n) {
      const name = points[n - 1][1],
        [a, b] = [x(points[from][0]), x(point[0])];
      if (PHASES[name]) {
        phases.push(
          svg("rect", {
            class: name,
            x: a,
            y: TOP,
            width: Math.max(0, b - a),
            height: bottom - TOP,
          }),
        );
        phases.push(
          svg("rect", {
            class: `band ${name}`,
            x: a + 0.5,
            y: 1,
            width: Math.max(0.5, b - a - 1),
            height: 15,
            rx: 3,
          }),
        );
        const layers = Math.max(...points.slice(from, n).map((one) => one[2]));
        // Four readings a second can miss layers; once it answers, all of them were read.
        const seen =
          point[1] === "answering"
            ? words.ALL_LAYERS
            : (n + 1 < points.length ? words.layers : words.layer)(layers);
        const text = [layers && seen, PHASES[name]].find(
          (words) => words && 5.6 * words.length + 8 < b - a,
        );
        if (text)
          phases.push(svg("text", { x: (a + b) / 2, y: 12, "text-anchor": "middle" }, text));
        // One line per layer, if there is room to tell them apart.
        const begins = points.slice(from + 1, n).filter((one, i) => one[2] !== points[from + i][2]);
        if (b - a > 4 * layers)
          for (const one of begins)
            phases.push(
              svg("line", { class: "layer", x1: x(one[0]), x2: x(one[0]), y1: 16, y2: TOP }),
            );
      }
      from = n;
    }
  });
  one.phases.replaceChildren(...phases);
  const over = [],
    labels = [],
    level = (value, name, text) => {
      if (!value) return;
      // A level far above the chart is only named, so that the areas stay large.
      if (value > top) {
        over.push(svg("text", { class: name, x: LEFT + 4, y: TOP + 12 }, `\u2191 ${text}`));
        return;
      }
      over.push(svg("line", { class: name, x1: LEFT, x2: right, y1: y(value), y2: y(value) }));
      labels.push({ at: y(value), name, text });
    };
  level(limit, "limit", (aside ? words.room : words.limit)(size(limit)));
  level(standard, "standard", words.standard(size(standard ?? 0)));
  level(peak, "peak", words.peak(size(peak)));
  for (const [n, [at]] of marks.entries()) {
    over.push(
      svg("path", { class: "mark", d: `M${x(at)} ${TOP}v${bottom - TOP}` }),
      svg("circle", { class: "mark", cx: x(at), cy: TOP + 7, r: 7 }),
      svg("text", { class: "number", x: x(at), y: TOP + 10.5, "text-anchor": "middle" }, n + 1),
    );
  }
  over.push(...named(labels, right, bottom), ...inside(one, stacks, drawn));
  if (cursor !== null) {
    const at = x(points[cursor][0]);
    over.push(svg("line", { class: "cursor", x1: at, x2: at, y1: TOP, y2: bottom }));
  }
  one.over.replaceChildren(...over);
  one.summary = words.timeline(
    one.title,
    size(peak),
    standard ? size(standard) : "",
    size(limit),
    duration(end),
  );
  const left = KINDS.map((kind, n) => [kind, values(points.at(-1), one.key)[n] ?? 0]).filter(
    ([kind, value]) => BESIDE.includes(kind) && !isDrawn(kind) && value >= 1,
  );
  setText($("b", one.caption), `${one.title}: ${size(stacks.at(-1).at(-1))}`);
  setText(
    $("span", one.caption),
    left.length ? words.beside(left.map(([kind, value]) => [words.KINDS[kind], size(value)])) : "",
  );
};

const showTip = (one) => {
  one.tip.hidden = cursor === null;
  if (cursor === null) return;
  const point = points[cursor],
    list = values(point, one.key);
  const rows = [
    [duration(point[0]), point[1] === "reading" ? words.layer(point[2]) : PHASES[point[1]] || ""],
  ];
  KINDS.forEach((kind, n) => {
    if (list[n] !== undefined) rows.push([words.KINDS[kind], size(list[n])]);
  });
  rows.push([words.ALL, size(sum(list))]);
  if (point[5]) rows.push([words.DISK, size(point[5])]);
  one.tip.replaceChildren(
    ...rows.map(([name, value]) => {
      const row = element("div");
      row.append(element("span", "", name), element("b", "", value));
      return row;
    }),
  );
  const at = one.scale.x(point[0]);
  one.tip.style.left = at > one.scale.right / 2 ? "auto" : `${at + 8}px`;
  one.tip.style.right = at > one.scale.right / 2 ? `${one.root.clientWidth - at + 8}px` : "auto";
};

let announced = 0;
const paint = () => {
  const box = $("#timeline .card");
  box.classList.toggle("empty", !points.length);
  if (!points.length) return;
  for (const one of charts) {
    draw(one);
    showTip(one);
  }
  for (const kind of KINDS)
    $(`.legend .${kind} button`, box)?.setAttribute("aria-pressed", String(isDrawn(kind)));
  $(".marks", box).replaceChildren(
    ...marks.map(([at, text]) => element("li", "", `${duration(at)}: ${text}`)),
  );
  // A label that changes twice a second would be noise to a screen reader.
  if (Date.now() - announced > 5000) {
    announced = Date.now();
    for (const one of charts) one.root.setAttribute("aria-label", one.summary);
  }
};

const begin = (news) => {
  lines = news;
  points = [];
  marks = [];
  cursor = null;
  announced = 0;
  charts = lines.device_name
    ? [chart("device", words.GPU), chart("host", words.MACHINE)]
    : [chart("host", words.MODEL)];
  $("#timeline .charts").replaceChildren(...charts.map((one) => one.figure));
  $("#timeline .legend").replaceChildren(
    ...KINDS.map((kind) => {
      const item = element("li", kind);
      const toggle = element("button");
      toggle.type = "button";
      toggle.append(element("i"), words.KINDS[kind]);
      toggle.onclick = () => {
        if (!undrawn.delete(kind)) undrawn.add(kind);
        if (points.length) paint();
      };
      item.append(toggle);
      return item;
    }),
  );
  for (const one of charts) {
    one.root.addEventListener("pointermove", (e) => {
      if (!points.length) return;
      const t = ((e.offsetX - LEFT) / Math.max(1, one.scale.right - LEFT)) * one.scale.end;
      look(nearest((time) => Math.abs(time - t)));
    });
    one.root.addEventListener("pointerleave", () => look(null));
    one.root.addEventListener("blur", () => look(null));
    one.root.addEventListener("keydown", (e) => {
      const move = {
        ArrowLeft: -1,
        ArrowRight: 1,
        PageUp: -20,
        PageDown: 20,
        Home: -MOST,
        End: MOST,
      }[e.key];
      if (move === undefined || !points.length) return;
      e.preventDefault();
      look(Math.min(points.length - 1, Math.max(0, (cursor ?? points.length - 1) + move)));
    });
  }
  paint();
};
const look = (n) => {
  cursor = n;
  if (points.length) paint();
};

/* Enlarges the chart by moving its card into a dialog, or moves it back. */
const wide = (is) => {
  const dialog = $("#timeline dialog"),
    card = $("#timeline .card"),
    toggle = $("#timeline [data-act=wide]");
  if (is) {
    dialog.append(card);
    dialog.showModal();
  } else {
    dialog.before(card);
    dialog.close();
  }
  toggle.setAttribute("aria-pressed", String(is));
  setText(toggle, is ? words.CLOSE : words.ENLARGE);
  toggle.focus();
  if (points.length) paint();
};

export const start = () => {
  on("timeline", begin);
  on("points", (news) => {
    points.push(...news.points);
    marks = news.marks;
    while (points.length > MOST) points = points.filter((_, n) => n % 2 === 0);
    paint();
  });
  $("#timeline [data-act=csv]").onclick = () => {
    if (points.length) download("memory.csv", new Blob([csv(points, marks)], { type: "text/csv" }));
  };
  $("#timeline [data-act=png]").onclick = () => {
    if (points.length) png(charts, KINDS.filter(isDrawn));
  };
  $("#timeline [data-act=wide]").onclick = () => wide(!$("#timeline dialog").open);
  document.addEventListener(
    "keydown",
    (e) => {
      if (e.key === "Escape" && $("#timeline dialog").open) {
        e.preventDefault();
        e.stopImmediatePropagation();
        wide(false);
      }
    },
    true,
  );
  new ResizeObserver(() => {
    if (points.length) paint();
  }).observe($("#timeline .charts"));
};
