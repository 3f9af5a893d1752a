/* The tree of parts: documents, chapters or folders, pages or files, each with its tokens and a tick.
   Only visible rows are in the page, so that 50,000 files cost no more than fifty. */
import { $, consume, element, on, oncePerFrame, setText } from "./core.js";
import { inOrder, tick } from "./parts.js";
import { view } from "./viewer.js";
import * as words from "./wording.js";

const GROUP = 100;
let rowPixels = 28,
  nodes = [],
  visible = [],
  focused = 0,
  windowTokens = null;
const open = new Set();

// A node stands for the parts from `first` up to, but not including, `end`; a leaf for one part.
const node = (doc, title, level, first, end, key) => ({
  doc,
  title,
  level,
  first,
  end,
  key,
  children: [],
  isLeaf: false,
});
const leaf = (doc, n, level, title) => ({
  ...node(doc, title ?? doc.parts.labels[n], level, n, n + 1, `${doc.parts.id}#${n}`),
  isLeaf: true,
});

const grouped = (doc, parent, first, end) => {
  // Pages without chapters are grouped by the hundred if there are many.
  const level = parent.level + 1;
  if (end - first <= 2 * GROUP) {
    for (let n = first; n < end; n += 1) parent.children.push(leaf(doc, n, level));
    return;
  }
  for (let from = first; from < end; from += GROUP) {
    const to = Math.min(end, from + GROUP),
      { labels, id } = doc.parts;
    const group = node(
      doc,
      `${labels[from]} – ${labels[to - 1]}`,
      level,
      from,
      to,
      `${id}:${from}-${to}`,
    );
    for (let n = from; n < to; n += 1) group.children.push(leaf(doc, n, level + 1));
    parent.children.push(group);
  }
};
// A chapter ends where the next chapter outside it begins.
const chapterEnds = (chapters, total) => {
  const ends = [],
    after = [];
  for (let at = chapters.length - 1; at >= 0; at -= 1) {
    const [, depth, first] = chapters[at];
    while (after.length && after.at(-1)[0] > depth) after.pop();
    ends[at] = after.length ? after.at(-1)[1] : total;
    after.push([depth, first]);
  }
  return ends;
};
const byChapters = (doc, root) => {
  const { chapters, labels, id } = doc.parts,
    stack = [root],
    ends = chapterEnds(chapters, labels.length);
  if (chapters[0][2] > 0) grouped(doc, root, 0, chapters[0][2]);
  chapters.forEach(([title, depth, first], at) => {
    while (stack.length > 1 && stack.at(-1).depth >= depth) stack.pop();
    const parent = stack.at(-1);
    const end = Math.max(first, Math.min(ends[at], parent.end));
    const one = node(doc, title, parent.level + 1, first, end, `${id}/${at}`);
    one.depth = depth;
    parent.children.push(one);
    stack.push(one);
    const inner = chapters[at + 1];
    const own = inner ? Math.min(inner[2], end) : end;
    if (own > first) grouped(doc, one, first, own);
  });
  const drop = (one) => {
    one.children = one.children.filter((child) => child.end > child.first);
    one.children.forEach(drop);
  };
  drop(root);
};
const byFolders = (doc, root) => {
  const stack = [{ at: root, path: "" }];
  doc.parts.labels.forEach((label, n) => {
    const folders = label.split("/").slice(0, -1);
    while (stack.at(-1).path && !label.startsWith(stack.at(-1).path)) stack.pop();
    for (let depth = stack.length - 1; depth < folders.length; depth += 1) {
      const path = `${folders.slice(0, depth + 1).join("/")}/`;
      const one = node(doc, `${folders[depth]}/`, depth + 2, n, n, `${doc.parts.id}/${path}@${n}`);
      stack.at(-1).at.children.push(one);
      stack.push({ at: one, path });
    }
    stack.at(-1).at.children.push(leaf(doc, n, stack.length + 1, label.split("/").at(-1)));
    for (const one of stack) one.at.end = n + 1;
  });
};
const build = () => {
  nodes = inOrder().map((doc) => {
    const { labels, chapters, id, name } = doc.parts;
    if (labels.length === 1) return leaf(doc, 0, 1, name);
    const root = node(doc, name, 1, 0, labels.length, id);
    if (labels.some((label) => label.includes("/"))) byFolders(doc, root);
    else if (chapters.length) byChapters(doc, root);
    else grouped(doc, root, 0, labels.length);
    return root;
  });
  // If there is only one document, it starts open.
  if (nodes.length === 1 && !open.has(`closed ${nodes[0].key}`)) open.add(nodes[0].key);
  flatten();
};
const flatten = () => {
  const before = visible[focused]?.key;
  visible = [];
  const put = (list, parent) =>
    list.forEach((one, at) => {
      one.parent = parent;
      one.place = at + 1;
      one.siblings = list.length;
      visible.push(one);
      if (!one.isLeaf && open.has(one.key)) put(one.children, one);
    });
  put(nodes, null);
  focused = Math.max(
    0,
    visible.findIndex((one) => one.key === before),
  );
  draw();
};

const state = (one) => {
  const on = one.doc.ticked[one.end] - one.doc.ticked[one.first];
  return on === 0 ? "false" : on === one.end - one.first ? "true" : "mixed";
};
const tokens = (one) => one.doc.parts.sums[one.end] - one.doc.parts.sums[one.first];
const share = (sum) => (windowTokens ? words.share((100 * sum) / windowTokens) : "");

const row = (one, at) => {
  const item = element("div", one.isLeaf ? "leaf" : "group"),
    ticked = state(one),
    sum = tokens(one);
  item.id = `tree-${at}`;
  item.dataset.at = at;
  item.style.top = `${at * rowPixels}px`;
  item.style.paddingLeft = `${(one.level - 1) * 14 + 4}px`;
  const set = (name, value) => item.setAttribute(name, value);
  const doubt = one.isLeaf ? (one.doc.parts.doubts[one.first] ?? "") : "";
  set("role", "treeitem");
  set("aria-level", one.level);
  set("aria-posinset", one.place);
  set("aria-setsize", one.siblings);
  set("aria-checked", ticked);
  set("aria-label", [one.title, words.tokens(sum), share(sum), doubt].filter(Boolean).join(", "));
  if (!one.isLeaf) set("aria-expanded", open.has(one.key));
  item.tabIndex = at === focused ? 0 : -1;
  const box = element("i", "tick"),
    text = element("span", "title", one.title),
    figures = element("small", "", compact(sum));
  box.dataset.state = ticked;
  figures.append(element("em", "", share(sum)));
  text.title = doubt ? `${one.title}: ${doubt}` : one.title;
  item.append(element("i", "fold"), box, text);
  if (doubt) item.append(element("i", "doubt", "!"));
  item.append(figures);
  return item;
};
const compact = (sum) =>
  sum < 10000 ? sum.toLocaleString("en") : `${Math.round(sum / 1000).toLocaleString("en")}k`;

const draw = () => {
  const box = $("#tree"),
    inner = $(".rows-in-sight", box),
    hadFocus = box.contains(document.activeElement);
  inner.style.height = `${visible.length * rowPixels}px`;
  const from = Math.max(0, Math.floor(box.scrollTop / rowPixels) - 6),
    to = Math.min(visible.length, from + Math.ceil((box.clientHeight || 320) / rowPixels) + 12);
  const shown = [];
  for (let at = from; at < to; at += 1) shown.push(row(visible[at], at));
  // The focused row is always in the page, so that the Tab key can reach it.
  if (visible.length && (focused < from || focused >= to))
    shown.push(row(visible[focused], focused));
  inner.replaceChildren(...shown);
  if (hadFocus) $(`#tree-${focused}`)?.focus({ preventScroll: true });
  $("#documents .parts").hidden = !visible.length;
  // The document that page range and search apply to.
  setText($("#documents .about"), nodes.length > 1 ? current().parts.name : "");
  const range = $("#documents .range"),
    { unit = "part", labels = [] } = current()?.parts ?? {};
  // Files have names, not page numbers.
  range.hidden = unit === "file" || labels.length < 2;
  $("input", range).placeholder = $("input", range).ariaLabel = words.keep(unit);
};
const focus = (at) => {
  focused = Math.max(0, Math.min(visible.length - 1, at));
  const box = $("#tree"),
    top = focused * rowPixels;
  if (top < box.scrollTop) box.scrollTop = top;
  if (top + rowPixels > box.scrollTop + box.clientHeight)
    box.scrollTop = top + rowPixels - box.clientHeight;
  draw();
  $(`#tree-${focused}`)?.focus({ preventScroll: true });
};
const fold = (one, is) => {
  if (is) {
    open.add(one.key);
    open.delete(`closed ${one.key}`);
  } else {
    open.delete(one.key);
    open.add(`closed ${one.key}`);
  }
  flatten();
};
const toggle = (one) => {
  const numbers = [];
  for (let n = one.first; n < one.end; n += 1) numbers.push(n);
  tick(one.doc.parts.id, numbers, state(one) !== "true");
};
const act = (one) =>
  one.isLeaf ? view(one.doc.parts.id, one.first) : fold(one, !open.has(one.key));

const KEYS = {
  ArrowDown: () => focus(focused + 1),
  ArrowUp: () => focus(focused - 1),
  Home: () => focus(0),
  End: () => focus(visible.length - 1),
  PageDown: () => focus(focused + 10),
  PageUp: () => focus(focused - 10),
  ArrowRight: (one) =>
    one.isLeaf ? null : open.has(one.key) ? focus(focused + 1) : fold(one, true),
  ArrowLeft: (one) =>
    !one.isLeaf && open.has(one.key)
      ? fold(one, false)
      : one.parent && focus(visible.indexOf(one.parent)),
  Enter: act,
  " ": toggle,
};

// The document that page range and search apply to: that of the focused row.
const current = () => visible[focused]?.doc ?? inOrder()[0];
export const currentId = () => current()?.parts.id;

export const start = () => {
  const box = $("#tree"),
    isNarrow = matchMedia("(max-width: 700px)");
  // Fingers need more room.
  const measure = () => {
    rowPixels = isNarrow.matches ? 38 : 28;
    box.style.setProperty("--row", `${rowPixels}px`);
    draw();
  };
  isNarrow.addEventListener("change", measure);
  measure();
  new ResizeObserver(draw).observe(box);
  on("state", (s) => {
    if (s.documents.window_tokens !== windowTokens) {
      windowTokens = s.documents.window_tokens;
      draw();
    }
  });
  on("parts", build);
  box.addEventListener("scroll", oncePerFrame(draw));
  box.addEventListener("keydown", (e) => {
    const one = visible[focused];
    if (!one || !KEYS[e.key] || e.ctrlKey || e.metaKey || e.altKey) return;
    consume(e);
    KEYS[e.key](one);
  });
  box.addEventListener("click", (e) => {
    const item = e.target.closest("[data-at]");
    if (!item) return;
    focused = Number(item.dataset.at);
    const one = visible[focused];
    item.focus({ preventScroll: true });
    if (e.target.closest(".tick")) {
      toggle(one);
      draw();
    } else act(one);
  });
};
