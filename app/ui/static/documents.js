/* The list of documents and what is chosen from each: parts, passwords, extractors, what was left out. */
import { $, button, element, on, send, setText } from "./core.js";
import { view } from "./viewer.js";

// The parts of one document with their ticks, fetched when they are opened.
const known = new Map();
const choose = (id, parts) => send("PUT", `./documents/${id}/choice`, { unticked: parts.flatMap((part, n) => (part.is_chosen ? [] : [n])) }).then(() => draw(id));
const folder = (part) => part.label.includes("/") ? part.label.slice(0, part.label.lastIndexOf("/") + 1) : "";
const draw = async (id) => {
  const box = known.get(id);
  if (!box?.isConnected) return;
  const parts = await send("GET", `./documents/${id}/parts`);
  if (!parts) return;
  const groups = [];
  for (const [number, part] of parts.entries()) {
    const title = part.chapter || folder(part);
    if (!groups.length || (part.chapter ? true : folder(part) !== groups.at(-1).folder)) groups.push({ title, folder: folder(part), items: [] });
    groups.at(-1).items.push([number, part]);
  }
  const tick = (is, numbers, label) => {
    const input = element("input"); input.type = "checkbox"; input.checked = is; input.setAttribute("aria-label", label);
    input.onchange = () => { for (const n of numbers) parts[n].is_chosen = input.checked; choose(id, parts); };
    return input;
  };
  const tokens = (items) => {
    const sum = items.reduce((all, [, part]) => all + (part.tokens ?? 0), 0);
    return `${sum.toLocaleString("en")} tokens${windowTokens ? `, ${(100 * sum / windowTokens).toPrecision(2)} %` : ""}`;
  };
  // A long manual has thousands of pages: the inside of a group is drawn when it is opened.
  box.replaceChildren(...groups.map((group) => {
    const numbers = group.items.map(([number]) => number), all = group.items.every(([, part]) => part.is_chosen);
    const first = group.items[0][1].label, last = group.items.at(-1)[1].label;
    const every = first.startsWith("p. ") ? "All pages" : "All parts";
    const title = group.title || (groups.length === 1 ? every : first === last ? first : `${first} – ${last}`);
    const whole = element("div", "group"), details = element("details"), summary = element("summary");
    summary.append(element("span", "", title), element("small", "", tokens(group.items)));
    details.append(summary);
    details.ontoggle = () => {
      if (!details.open || details.childElementCount > 1) return;
      details.append(...group.items.map(([number, part]) => {
        const row = element("div", "part");
        row.append(tick(part.is_chosen, [number], part.label), button(part.label, () => view(id, number)), element("small", "", tokens([[number, part]])), element("small", "bad", part.doubt));
        return row;
      }));
    };
    if (groups.length === 1) details.open = true;
    // Beside its name, not within it: a summary is itself something to press.
    whole.append(tick(all, numbers, title), details);
    return whole;
  }));
};

// Below each document; the list itself is painted below.
const field = (placeholder, act, type = "text") => {
  const form = element("form"), input = element("input");
  input.type = type; input.placeholder = placeholder; input.setAttribute("aria-label", placeholder);
  if (type === "password") input.autocomplete = "off";
  form.append(input);
  form.onsubmit = (e) => { e.preventDefault(); act(input.value, input); };
  return form;
};
const controls = (row) => {
  const id = row.id, box = element("div", "controls");
  if (row.is_locked) box.append(field("Password, then Enter", (value) => send("PUT", `./documents/${id}/options`, { password: value }), "password"));
  if (row.has_parts) {
    const details = element("details", "choice"); details.dataset.id = `parts-${id}`;
    const tree = element("div", "tree"), hits = element("div", "hits");
    details.append(element("summary", "", "Choose parts"),
      field("Keep pages or parts: 1-40, 88", (value) => send("PUT", `./documents/${id}/choice`, { pages: value }).then(() => draw(id))),
      field("Search for a part", async (value) => {
        const found = await send("GET", `./documents/${id}/find?words=${encodeURIComponent(value)}`);
        if (!found) return;
        hits.replaceChildren(element("small", "", `${found.length} found`), ...found.slice(0, 20).map((n) => button(`${n + 1}`, () => view(id, n, value))));
      }), hits, tree);
    details.ontoggle = () => { if (details.open) { known.set(id, tree); draw(id); } };
    box.append(details);
  }
  if (row.extractor || row.error) {
    const select = element("select"); select.setAttribute("aria-label", "How its text is extracted");
    for (const [value, text] of [["pdfium", "Text by PDFium"], ["pypdf", "Text by pypdf"], ["ocr", "Recognise pages without text"]]) {
      const option = element("option", "", text); option.value = value; option.selected = value === row.extractor; select.append(option);
    }
    select.onchange = () => send("PUT", `./documents/${id}/options`, { extractor: select.value });
    if (row.extractor || /\.pdf$/i.test(row.name)) box.append(select);
  }
  return box;
};
const up = (row, rows) => button("↑", () => {
  const ids = rows.map((one) => one.id), at = ids.indexOf(row.id);
  ids.splice(at, 1); ids.splice(at - 1, 0, row.id);
  send("PUT", "./documents/order", ids);
}, `Move ${row.name} up`);
const leftOut = (row) => row.left_out.map(([line, path]) => {
  const item = element("li", "", line);
  if (path) item.append(" ", button("Put back", () => send("PUT", `./documents/${row.id}/options`, { put_back: path }), `Put ${path} back`));
  return item;
});
let windowTokens = null;
const advice = (documents) => {
  windowTokens = documents.window_tokens;
  const box = $("#documents .advice"); if (!box) return;
  box.hidden = !documents.is_too_much;
  $("p", box).textContent = documents.advice;
  $(".fit", box).checked = documents.fits_best_parts;
};
let painted = "";
const paint = (documents) => {
  const box = $("#documents"), key = JSON.stringify(documents);
  const list = box.querySelector(".rows");
  if (key === painted) return;
  painted = key;
  const open = new Set([...list.querySelectorAll("details[open]")].map((d) => d.dataset.id));
  list.replaceChildren(...documents.rows.map((row) => {
    const item = element("li", row.error ? "bad" : "");
    const head = element("div", "head");
    head.append(element("b", "", row.name));
    head.firstChild.title = row.name;
    const remove = element("button", "remove", "×");
    remove.type = "button"; remove.dataset.remove = row.id;
    remove.setAttribute("aria-label", `Remove ${row.name}`); remove.title = "Remove";
    if (row !== documents.rows[0]) head.append(up(row, documents.rows));
    head.append(remove);
    item.append(head, element("div", row.error ? "error" : "facts", row.error || row.facts));
    if (row.receipt) {
      const details = element("details", "receipt"); details.dataset.id = row.id; details.open = open.has(row.id);
      details.append(element("summary", "", "Reading receipt"), element("p", "", row.receipt));
      if (row.left_out.length) {
        const out = element("ul"); out.append(...leftOut(row));
        details.append(element("p", "", "Left out:"), out);
      }
      item.append(details);
    }
    item.append(controls(row));
    return item;
  }));
  for (const details of list.querySelectorAll("details.choice")) if (open.has(details.dataset.id)) details.open = true;
  setText(box.querySelector(".total"), documents.total);
  box.querySelector(".share i").style.transform = `scaleX(${documents.percent / 100})`;
  box.classList.toggle("full", documents.is_too_much);
  box.classList.toggle("empty", !documents.rows.length);
};

document.addEventListener("change", (e) => { if (e.target.matches?.("#documents .fit")) send("PUT", "./fit", e.target.checked); });
document.addEventListener("submit", (e) => {
  if (!e.target.matches?.(".open-path")) return;
  e.preventDefault();
  const input = $("input", e.target);
  send("POST", "./documents", { path: input.value }).then(() => { if (!$("#drop .upload").textContent) input.value = ""; });
});
document.addEventListener("click", (e) => {
  const remove = e.target.closest?.("[data-remove]");
  if (remove) send("DELETE", `./documents/${remove.dataset.remove}`);
});

export const start = () => {
  on("state", (state) => { advice(state.documents); paint(state.documents); });
  on("chosen", (id) => draw(id));
};
