/* Choosing from documents: their parts, passwords, extractors, what was left out, and the text
   that the model sees. Text from outside is only ever set as text, never as HTML. */
(() => {
  const $ = (selector, from = document) => from.querySelector(selector);
  const element = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const button = (text, act, label) => {
    const node = element("button", "small", text);
    node.type = "button"; node.onclick = act;
    if (label) { node.title = label; node.setAttribute("aria-label", label); }
    return node;
  };
  const say = (text) => { const n = $("#drop .upload"); if (n) { n.textContent = text; n.classList.toggle("bad", !!text); } };
  const send = async (method, path, data) => {
    const answer = await fetch(path, data === undefined ? { method } : { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(data) });
    if (answer.status === 204) { say(""); return null; }
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) { say(typeof body.detail === "string" ? body.detail : `The request was refused (${answer.status}).`); return null; }
    return body;
  };

  // A window on the exact text that the model sees.
  let viewer = null;
  const view = async (id, number, words) => {
    const part = await send("GET", `./documents/${id}/parts/${number}`);
    if (!part) return;
    if (!viewer) { viewer = element("dialog", "viewer"); document.body.append(viewer); }
    const head = element("div", "head");
    head.append(element("b", "", part.label), element("span", "bad", part.doubt),
      button("‹", () => view(id, number - 1), "Previous part"), button("›", () => view(id, number + 1), "Next part"),
      button("Leave out", () => { untick(id, number); viewer.close(); }, "Leave this part out"),
      button("×", () => viewer.close(), "Close"));
    const text = element("pre"), place = words ? normal(part.text, words) : null;
    if (place) { const mark = element("mark", "", part.text.slice(...place)); text.append(part.text.slice(0, place[0]), mark, part.text.slice(place[1])); }
    else text.textContent = part.text || "This part has no text.";
    viewer.replaceChildren(head, element("p", "note", "What the model sees:"), text);
    if (!viewer.open) viewer.showModal();
    $("mark", viewer)?.scrollIntoView({ block: "center" });
  };
  // Where some words stand in a text, whatever the white space between them.
  const normal = (text, words) => {
    const escaped = words.trim().split(/\s+/).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const found = new RegExp(escaped.join("\\s+"), "i").exec(text);
    return found ? [found.index, found.index + found[0].length] : null;
  };

  // The parts of one document with their ticks, fetched when they are opened.
  const known = new Map();
  const untick = async (id, number) => {
    const parts = await send("GET", `./documents/${id}/parts`);
    if (!parts) return;
    parts[number].is_chosen = false;
    await choose(id, parts);
  };
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
      const whole = first.startsWith("p. ") ? "All pages" : "All parts";
      const title = group.title || (groups.length === 1 ? whole : first === last ? first : `${first} – ${last}`);
      const details = element("details", "group"), summary = element("summary");
      summary.append(tick(all, numbers, title), element("span", "", title), element("small", "", tokens(group.items)));
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
      return details;
    }));
  };

  // Below each document; the list itself is painted by page.js.
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
  const citations = (list) => {
    const box = $("#live .citations"); if (!box) return;
    box.hidden = !list.length;
    const rows = list.map((one) => {
      const item = element("li", one.found ? "" : "bad");
      if (one.place) item.append(button(one.text, () => view(...one.place, one.quote))); else item.textContent = one.text;
      return item;
    });
    const key = JSON.stringify(list);
    if (box.dataset.key !== key) { box.dataset.key = key; $("ul", box).replaceChildren(...rows); }
  };
  let windowTokens = null;
  const advice = (documents) => {
    windowTokens = documents.window_tokens;
    const box = $("#documents .advice"); if (!box) return;
    box.hidden = !documents.is_too_much;
    $("p", box).textContent = documents.advice;
    $(".fit", box).checked = documents.fits_best_parts;
  };
  window.momDocuments = { controls, up, leftOut, citations, advice };

  document.addEventListener("change", (e) => { if (e.target.matches?.("#documents .fit")) send("PUT", "./fit", e.target.checked); });
  document.addEventListener("submit", (e) => {
    if (!e.target.matches?.(".open-path")) return;
    e.preventDefault();
    const input = $("input", e.target);
    send("POST", "./documents", { path: input.value }).then(() => { if (!$("#drop .upload").textContent) input.value = ""; });
  });
})();
