/* The token map: one strip per document, with a cell per page or file, as wide as its share of tokens.
   It is drawn on a canvas because a manual has thousands of pages. */
import { $, element, on, oncePerFrame, setText, sum } from "./core.js";
import { find } from "./parts.js";
import { view } from "./viewer.js";
import * as words from "./wording.js";

let strips = [],
  rows = [],
  run = null,
  cited = new Set();
const key = (id, cell) => `${id} ${cell}`;

// A strip keeps its node while its number of cells stays the same, so that keyboard focus stays.
const build = (news) => {
  strips = news;
  $("#map").classList.toggle("empty", !strips.length);
  rows = strips.map((strip) => {
    const known = rows.find(
      (one) => one.strip.id === strip.id && one.strip.tokens.length === strip.tokens.length,
    );
    const one = Object.assign(known ?? create(strip), { strip });
    let left = 0;
    // An empty page gets a width too, so that it can be seen and clicked.
    const least = sum(strip.tokens) / 600 / Math.max(1, strip.tokens.length / 100);
    const widths = strip.tokens.map((tokens) => Math.max(tokens, least)),
      all = sum(widths);
    one.starts = widths.map((width) => {
      const start = left / all;
      left += width;
      return start;
    });
    one.ends = [...one.starts.slice(1), 1];
    if (document.activeElement === one.canvas) announce(one);
    return one;
  });
  const box = $("#map .strips"),
    nodes = rows.map((one) => one.row);
  if (nodes.length !== box.childElementCount || nodes.some((node, n) => box.children[n] !== node))
    box.replaceChildren(...nodes);
  later();
};
const create = (strip) => {
  const row = element("div", "strip"),
    canvas = element("canvas"),
    name = element("span", "name", strip.name);
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "slider");
  canvas.setAttribute("aria-label", words.mapOf(strip.name));
  canvas.setAttribute("aria-valuemin", "1");
  canvas.setAttribute("aria-valuenow", "1");
  canvas.setAttribute("aria-valuemax", String(strip.tokens.length));
  name.title = strip.name;
  row.append(name, canvas);
  const one = { strip, row, canvas, cell: 0, hover: null };
  canvas.onpointermove = (e) => {
    one.hover = cellAt(one, e.offsetX);
    showTip(one, one.hover);
    later();
  };
  canvas.onpointerleave = () => {
    one.hover = null;
    $("#map .tip").textContent = "";
    later();
  };
  canvas.onclick = (e) => {
    one.cell = cellAt(one, e.offsetX);
    open(one);
  };
  canvas.onfocus = () => {
    announce(one);
    later();
  };
  canvas.onblur = later;
  canvas.onkeydown = (e) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e9, End: 1e9 }[
      e.key
    ];
    if (move !== undefined) {
      e.preventDefault();
      one.cell = Math.min(one.strip.tokens.length - 1, Math.max(0, one.cell + move));
      announce(one);
      later();
    }
    if (e.key === "Enter" || e.key === " ") {
      e.preventDefault();
      open(one);
    }
  };
  return one;
};

const cellAt = (one, x) => {
  const share = x / Math.max(1, one.canvas.clientWidth);
  let low = 0,
    high = one.starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (one.starts[middle] <= share) low = middle;
    else high = middle - 1;
  }
  return low;
};
const open = (one) => view(one.strip.id, one.cell * one.strip.group);

const labelsOf = (id) => find(id)?.parts.labels ?? [];
const STATES = { w: words.WAITING, r: words.READ, e: words.WITHOUT_TEXT, x: words.LEFT_OUT };
const describe = (one, cell) => {
  const { strip } = one,
    all = labelsOf(strip.id),
    first = cell * strip.group,
    last = Math.min(all.length, first + strip.group) - 1;
  const name = first === last ? all[first] : `${all[first]} – ${all[last]}`;
  const tokens = strip.tokens[cell].toLocaleString("en");
  return `${name ?? ""} · ${tokens} tokens · ${STATES[strip.states[cell]]}`;
};
const showTip = (one, cell) => setText($("#map .tip"), describe(one, cell));
const announce = (one) => {
  one.canvas.setAttribute("aria-valuenow", String(one.cell + 1));
  one.canvas.setAttribute("aria-valuetext", describe(one, one.cell));
};

const later = oncePerFrame(() => rows.forEach(draw));

const draw = (one) => {
  const { canvas, strip } = one,
    scale = devicePixelRatio || 1,
    width = canvas.clientWidth,
    height = canvas.clientHeight;
  if (!width) return;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const c = canvas.getContext("2d"),
    style = getComputedStyle(canvas),
    color = (name) => style.getPropertyValue(name).trim();
  c.setTransform(scale, 0, 0, scale, 0, 0);
  c.clearRect(0, 0, width, height);
  const [line, accent, bad, ink] = ["--line", "--accent", "--bad", "--ink"].map(color);
  const isReading = run?.is_busy && run.phase === "reading",
    gap = width / strip.tokens.length > 4 ? 1 : 0;
  let token = strip.start;
  strip.tokens.forEach((tokens, n) => {
    const state = strip.states[n],
      x = one.starts[n] * width,
      w = Math.max(0.6, (one.ends[n] - one.starts[n]) * width - gap);
    c.globalAlpha = 1;
    c.fillStyle = line;
    c.fillRect(x, 0, w, height);
    if (state === "r") {
      c.globalAlpha = 0.85;
      c.fillStyle = accent;
      c.fillRect(x, 0, w, height);
    }
    if (state === "w" && isReading) {
      // Every layer reads all pages: the fuller a cell, the more layers have read its page.
      const done =
        (run.layer - 1 + (run.at_tokens >= token + tokens ? 1 : 0)) / Math.max(1, run.layers);
      c.globalAlpha = 0.85;
      c.fillStyle = accent;
      c.fillRect(x, height * (1 - done), w, height * done);
    }
    if (state === "w" && run?.is_busy && run.phase === "answering") {
      c.globalAlpha = 0.85;
      c.fillStyle = accent;
      c.fillRect(x, 0, w, height);
    }
    if (state === "e") {
      c.globalAlpha = 1;
      c.fillStyle = bad;
      c.fillRect(x, height - 3, w, 3);
    }
    if (state === "x") {
      c.globalAlpha = 0.5;
      c.strokeStyle = ink;
      c.lineWidth = 1;
      c.beginPath();
      c.moveTo(x, height / 2);
      c.lineTo(x + w, height / 2);
      c.stroke();
    }
    if (cited.has(key(strip.id, n))) {
      c.globalAlpha = 1;
      c.fillStyle = "#f59e0b";
      c.fillRect(x, 0, Math.max(3, w), height);
      c.fillStyle = ink;
      c.beginPath();
      c.moveTo(x + w / 2 - 4, 0);
      c.lineTo(x + w / 2 + 4, 0);
      c.lineTo(x + w / 2, 5);
      c.fill();
    }
    if (one.hover === n || (document.activeElement === canvas && one.cell === n)) {
      c.globalAlpha = 1;
      c.strokeStyle = ink;
      c.lineWidth = 2;
      c.strokeRect(x + 1, 1, Math.max(2, w - 2), height - 2);
    }
    if (isReading && state !== "x" && run.at_tokens >= token && run.at_tokens < token + tokens) {
      const at = x + (w * (run.at_tokens - token)) / Math.max(1, tokens);
      c.globalAlpha = 1;
      c.fillStyle = ink;
      c.fillRect(at - 1, 0, 2, height);
    }
    if (state !== "x") token += tokens;
  });
};

// Pages that an answer cites are marked while it grows, and stay marked when it is done.
let seen = "",
  asked = 0;
const cite = (text) => {
  const now = Date.now();
  if (text === seen || now - asked < 700) return;
  seen = text;
  asked = now;
  const marks = [...text.matchAll(/\[([^[\]\n]{1,200})\]/g)]
    .flatMap((match) => match[1].split(/[;,]/))
    .map((name) => name.trim().toLowerCase());
  if (!marks.length) return;
  for (const strip of strips) {
    const all = labelsOf(strip.id);
    all.forEach((label, n) => {
      if (marks.includes(label.toLowerCase()))
        cited.add(key(strip.id, Math.floor(n / strip.group)));
    });
  }
  later();
};

export const start = () => {
  let text = "";
  on("map", build);
  on("state", (state) => {
    run = state.run;
    for (const one of state.run.is_busy ? [] : state.citations) {
      const strip = one.found && one.place && strips.find((other) => other.id === one.place[0]);
      if (strip) cited.add(key(strip.id, Math.floor(one.place[1] / strip.group)));
    }
    later();
  });
  on("text", (news) => {
    if (news.start === 0) {
      text = "";
      seen = "";
      cited = new Set();
    }
    text = text.slice(0, news.start) + news.text;
    cite(text);
  });
  new ResizeObserver(later).observe($("#map .strips"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later);
};
