/* The list of documents: their order, and each one's progress, options and omitted parts. */
import { $, button, element, on, send, setText } from "./core.js";
import { put, start as startDragging } from "./reorder.js";
import { currentId } from "./tree.js";
import { view } from "./viewer.js";
import * as words from "./wording.js";

const options = (id, data) => send("PUT", `./documents/${id}/options`, data);
const field = (label, value, act, type = "text") => {
  const form = element("form"),
    input = element("input");
  input.type = type;
  input.placeholder = label;
  input.value = value;
  input.setAttribute("aria-label", label);
  if (type === "password") input.autocomplete = "off";
  form.append(input);
  form.onsubmit = (e) => {
    e.preventDefault();
    act(input.value);
  };
  return form;
};
const onOff = (label, is, act) => {
  const box = element("label", "switch"),
    input = element("input");
  input.type = "checkbox";
  input.checked = is;
  input.onchange = () => act(input.checked);
  box.append(input, element("span", "", label));
  return box;
};
const extractors = (row) => {
  const select = element("select");
  select.setAttribute("aria-label", words.EXTRACTOR);
  for (const [value, text] of words.EXTRACTORS) {
    const option = element("option", "", text);
    option.value = value;
    option.selected = value === row.extractor;
    select.append(option);
  }
  select.onchange = () => options(row.id, { extractor: select.value });
  return select;
};
// Sections that are open stay open when a document is reread.
const unfolded = new Set();
const folded = (row, name, title, ...inside) => {
  const details = element("details", name),
    key = `${row.id} ${name}`;
  details.open = unfolded.has(key);
  details.addEventListener("toggle", () => {
    if (details.open) unfolded.add(key);
    else unfolded.delete(key);
  });
  details.append(element("summary", "", title), ...inside);
  return details;
};

// The end of a name says more than its middle, so it stays visible.
const END = 12;
export const shortened = (name) => {
  const box = element("b", "name");
  box.title = name;
  if (name.length <= END + 2) box.append(element("span", "start", name));
  else
    box.append(
      element("span", "start", name.slice(0, -END)),
      element("span", "end", name.slice(-END)),
    );
  return box;
};

const leftOut = (row) => {
  const list = element("ul");
  let isAsked = false;
  const more = async () => {
    if (isAsked) return;
    isAsked = true;
    const page = await send(
      "GET",
      `./documents/${row.id}/left_out?start=${list.querySelectorAll("li").length}`,
    );
    isAsked = false;
    if (!page) return;
    list.nextElementSibling?.remove();
    list.append(
      ...page.entries.map(([line, path]) => {
        const item = element("li", "", line);
        if (path)
          item.append(
            " ",
            button(words.PUT_BACK, () => options(row.id, { put_back: path }), words.putBack(path)),
          );
        return item;
      }),
    );
    const rest = page.total - list.childElementCount;
    if (rest > 0) list.after(button(words.showMore(rest), more));
  };
  return [element("p", "", words.NOT_READ), list, more];
};
const receipt = (row) => {
  const details = folded(row, "receipt", words.RECEIPT, element("p", "", row.receipt));
  if (!row.left_out) return details;
  const [title, list, more] = leftOut(row);
  details.append(title, list);
  details.addEventListener("toggle", () => {
    if (details.open && !list.childElementCount) more();
  });
  return details;
};
const howRead = (row) => {
  const inside = [];
  const patterns = (value) => value.split(/[\s,]+/).filter(Boolean);
  if (row.extractor || row.error) inside.push(extractors(row));
  if (row.extractor) {
    inside.push(
      onOff(words.RUNNING_LINES, row.drops_running_lines, (is) =>
        options(row.id, { drops_running_lines: is }),
      ),
      onOff(words.HYPHENS, row.joins_hyphens, (is) => options(row.id, { joins_hyphens: is })),
    );
  }
  if (row.is_folder) {
    inside.push(
      field(words.INCLUDE, row.include.join(", "), (value) =>
        options(row.id, { include: patterns(value) }),
      ),
      field(words.EXCLUDE, row.exclude.join(", "), (value) =>
        options(row.id, { exclude: patterns(value) }),
      ),
    );
  }
  return folded(row, "how", words.HOW_READ, ...inside);
};

const head = (row, rows) => {
  const box = element("div", "head"),
    at = rows.indexOf(row),
    tools = element("span", "tools");
  const arrow = (text, by, where) => {
    const one = button(
      text,
      () =>
        put(
          rows.map(({ id }) => id),
          row.id,
          at + by,
        ),
      words.move(row.name, where),
    );
    one.disabled = at + by < 0 || at + by >= rows.length;
    return one;
  };
  if (rows.length > 1) tools.append(arrow("↑", -1, "up"), arrow("↓", 1, "down"));
  const remove = button("×", () => send("DELETE", `./documents/${row.id}`), `Remove ${row.name}`);
  remove.classList.add("remove");
  tools.append(remove);
  box.append(shortened(row.name), tools);
  box.draggable = rows.length > 1;
  return box;
};
const card = (row, rows) => {
  const item = element("li", row.error ? "bad" : "");
  item.dataset.id = row.id;
  item.append(
    head(row, rows),
    element("div", row.error ? "error" : "facts", row.error || row.facts),
  );
  if (row.progress !== null || (!row.error && !row.receipt && !row.has_parts)) {
    const bar = element("div", "progress"),
      fill = element("i", row.progress === null ? "unknown" : "");
    bar.setAttribute("role", "progressbar");
    bar.setAttribute("aria-label", row.name);
    if (row.progress !== null) {
      bar.setAttribute("aria-valuenow", Math.round(row.progress));
      fill.style.width = `${row.progress}%`;
    }
    bar.append(fill);
    item.append(bar);
  }
  if (row.is_locked)
    item.append(
      field(words.PASSWORD, "", (value) => options(row.id, { password: value }), "password"),
    );
  if (row.can_raise)
    item.append(button(words.READ_ALL_THE_SAME, () => options(row.id, { raises_limit: true })));
  if (row.receipt) item.append(receipt(row));
  if (row.extractor || row.is_folder || (row.error && /\.pdf$/i.test(row.name)))
    item.append(howRead(row));
  return item;
};

// A card is rebuilt only when its own document changes, so that text typed in another card stays.
const cards = new Map();
let painted = "";
const paint = (documents) => {
  const key = JSON.stringify(documents);
  if (key === painted) return;
  painted = key;
  const box = $("#documents"),
    list = $(".rows", box),
    { rows } = documents;
  const order = rows.map((row) => row.id).join();
  for (const [id, one] of cards)
    if (!rows.some((row) => row.id === id)) {
      one.node.remove();
      cards.delete(id);
    }
  rows.forEach((row, at) => {
    const known = cards.get(row.id),
      now = JSON.stringify([row, order]);
    if (known?.key !== now) {
      const node = card(row, rows),
        focus = known?.node.contains(document.activeElement)
          ? document.activeElement.getAttribute("aria-label")
          : null;
      if (known) known.node.replaceWith(node);
      else list.append(node);
      if (focus) node.querySelector(`[aria-label="${CSS.escape(focus)}"]`)?.focus();
      cards.set(row.id, { key: now, node });
    }
    const { node } = cards.get(row.id);
    if (list.children[at] !== node) list.insertBefore(node, list.children[at] ?? null);
  });
  setText($(".total", box), documents.is_too_much ? documents.total : "");
  box.classList.toggle("empty", !rows.length);
  const advice = $(".advice", box);
  advice.hidden = !documents.is_too_much;
  setText($("p", advice), documents.advice);
  $(".fit", advice).checked = documents.fits_best_parts;
};

const range = (e) => {
  e.preventDefault();
  const id = currentId();
  if (id) send("PUT", `./documents/${id}/choice`, { pages: $("input", e.target).value });
};
const SHOWN = 20;
const search = async (e) => {
  e.preventDefault();
  const id = currentId(),
    hits = $("#documents .hits"),
    value = $("input", e.target).value;
  if (!id || !value.trim()) {
    hits.replaceChildren();
    return;
  }
  const found = await send("GET", `./documents/${id}/find?words=${encodeURIComponent(value)}`);
  if (!found) return;
  hits.replaceChildren(
    element("small", "", words.found(found.length, SHOWN)),
    ...found
      .slice(0, SHOWN)
      .map((n) => button(`${n + 1}`, () => view(id, n, value), `Part ${n + 1}`)),
  );
};

export const start = () => {
  on("state", (state) => paint(state.documents));
  const box = $("#documents");
  startDragging($(".rows", box));
  $(".range", box).onsubmit = range;
  $(".search", box).onsubmit = search;
  $(".fit", box).onchange = (e) => send("PUT", "./fit", e.target.checked);
  $(".open-path").onsubmit = (e) => {
    e.preventDefault();
    const input = $("input", e.target);
    send("POST", "./documents", { path: input.value }).then(() => {
      if (!$("#drop .upload").textContent) input.value = "";
    });
  };
};
