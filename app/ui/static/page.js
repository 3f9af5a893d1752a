/* Paints what changes often, from one stream of small updates (see app/routes.py).
   Text from outside is only ever set as text, never as HTML. */
(() => {
  const $ = (selector) => document.querySelector(selector);
  const setText = (node, text) => { if (node && node.textContent !== text) node.textContent = text; };
  let state = null, memory = null, live = { run: "", text: "" }, turns = null, stuck = true;

  // The stream. Browsers allow six connections to a server: a hidden tab gives its own back.
  let stream = null;
  const attach = () => {
    stream?.close(); stream = null;
    if (document.hidden) return;
    stream = new EventSource("./events");
    stream.addEventListener("state", (e) => { state = JSON.parse(e.data); paint(); });
    stream.addEventListener("memory", (e) => { memory = JSON.parse(e.data); paintMemory(); });
    stream.addEventListener("text", (e) => {
      const d = JSON.parse(e.data);
      if (d.run !== live.run || d.start === 0) { live = { run: d.run, text: "" }; }
      live.text = live.text.slice(0, d.start) + d.text;
      paintLive(d);
    });
    stream.onerror = () => offline(true);
    stream.onopen = () => offline(false);
  };
  const offline = (is) => {
    document.documentElement.dataset.offline = is;
    if (is) setText($("#progress .line"), "The program does not answer. Is it still running? This page reconnects by itself.");
    else if (state) paintProgress();
  };

  const paint = () => {
    if (!state || !$("#live .answer")) return;
    paintHeader(); paintDocuments(); momDocuments.advice(state.documents);
    momDocuments.citations(state.run.is_busy ? [] : state.citations); paintProgress(); paintButtons(); paintLive();
    if (turns !== null && turns !== state.turns) $("#refresh")?.click();
    turns = state.turns;
  };

  const paintHeader = () => {
    setText($("#top .model b"), state.model.name);
    setText($("#top .model span"), state.model.error || state.model.status);
    $("#top .model")?.classList.toggle("bad", !!state.model.error);
  };

  const paintButtons = () => {
    const busy = state.run.is_busy;
    const send = $("#send"), stop = $("#stop"), fresh = $("#new");
    if (send) send.disabled = busy || !!state.model.error;
    if (stop) stop.disabled = !busy;
    if (fresh) fresh.disabled = busy;
    document.documentElement.dataset.state = busy ? (state.run.phase === "idle" ? "waiting" : state.run.phase) : "idle";
  };

  let announced = "";
  const paintProgress = () => {
    const box = $("#progress"); if (!box || !state) return;
    const run = state.run, bar = box.querySelector(".bar i");
    if (bar) bar.style.transform = `scaleX(${run.is_busy ? run.percent / 100 : 0})`;
    box.classList.toggle("busy", run.is_busy);
    box.classList.toggle("bad", !!run.error);
    setText(box.querySelector(".line"), run.error || run.status);
    const said = run.is_busy ? (run.phase === "answering" ? "Answering" : "Reading") : (run.error || (run.id ? "Done" : ""));
    if (said !== announced) { announced = said; setText(box.querySelector("[aria-live]"), said); }
  };

  // The running answer grows by appended text; the finished one is in the conversation above.
  const paintLive = (added) => {
    const asked = $("#live .asked"), answer = $("#live .answer"), welcome = $("#live .welcome");
    if (!answer || !state) return;
    const shows = state.run.is_busy || (!!state.run.error && !!state.run.question);
    asked.hidden = !shows; setText(asked, shows ? state.run.question : "");
    answer.hidden = !(shows && live.text);
    if (!shows) { if (answer.firstChild) answer.replaceChildren(); }
    else {
      let node = answer.firstChild;
      if (!node) { node = document.createTextNode(""); answer.append(node); }
      if (node.data.length > live.text.length) node.data = live.text;
      else if (node.data.length < live.text.length) node.appendData(live.text.slice(node.data.length));
    }
    if (welcome) welcome.hidden = shows || state.turns > 0;
    keep();
  };

  const element = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  let paintedDocuments = "";
  const paintDocuments = () => {
    const box = $("#documents"); if (!box || !box.querySelector(".rows")) return;
    const documents = state.documents, key = JSON.stringify(documents);
    const list = box.querySelector(".rows");
    if (key === paintedDocuments && list.childElementCount === documents.rows.length) return;
    paintedDocuments = key;
    const open = new Set([...list.querySelectorAll("details[open]")].map((d) => d.dataset.id));
    list.replaceChildren(...documents.rows.map((row) => {
      const item = element("li", row.error ? "bad" : "");
      const head = element("div", "head");
      head.append(element("b", "", row.name));
      head.firstChild.title = row.name;
      const remove = element("button", "remove", "×");
      remove.type = "button"; remove.dataset.remove = row.id;
      remove.setAttribute("aria-label", `Remove ${row.name}`); remove.title = "Remove";
      if (row !== documents.rows[0]) head.append(momDocuments.up(row, documents.rows));
      head.append(remove);
      item.append(head, element("div", row.error ? "error" : "facts", row.error || row.facts));
      if (row.receipt) {
        const details = element("details", "receipt"); details.dataset.id = row.id; details.open = open.has(row.id);
        details.append(element("summary", "", "Reading receipt"), element("p", "", row.receipt));
        if (row.left_out.length) {
          const out = element("ul"); out.append(...momDocuments.leftOut(row));
          details.append(element("p", "", "Left out:"), out);
        }
        item.append(details);
      }
      item.append(momDocuments.controls(row));
      return item;
    }));
    for (const details of list.querySelectorAll("details.choice")) if (open.has(details.dataset.id)) details.open = true;
    setText(box.querySelector(".total"), documents.total);
    box.querySelector(".share i").style.transform = `scaleX(${documents.percent / 100})`;
    box.classList.toggle("full", documents.is_too_much);
    box.classList.toggle("empty", !documents.rows.length);
  };

  const paintMemory = () => {
    if (!memory) return;
    for (const key of ["device", "host"]) {
      const box = $(`#gauge-${key} .gauge`); if (!box) continue;
      const gauge = memory[key], bar = box.querySelector(".bar");
      setText(box.querySelector(".title"), gauge.title);
      setText(box.querySelector(".text"), gauge.text);
      let left = 0;
      for (const [kind, percent, size] of gauge.parts) {
        const part = bar.querySelector(`.${kind}`);
        part.style.left = left + "%"; part.style.width = percent + "%"; left += percent;
        const row = box.querySelector(`.kinds .${kind}`);
        row.hidden = false; setText(row.querySelector("b"), size);
      }
      bar.querySelector("u").style.left = Math.min(99.5, gauge.peak) + "%";
      bar.setAttribute("aria-valuenow", Math.round(left)); bar.setAttribute("aria-valuetext", gauge.text);
    }
  };

  // The reader's place: at the end the page follows the answer, elsewhere it stays put.
  const keep = () => { const log = $("#chat"); if (log && stuck) log.scrollTop = log.scrollHeight; };
  document.addEventListener("scroll", (e) => {
    if (e.target.id === "chat") stuck = e.target.scrollHeight - e.target.clientHeight - e.target.scrollTop < 40;
  }, true);

  // Dropping and choosing files.
  const SKIPPED = new Set([".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", "venv", "__MACOSX"]);
  const say = (text, bad) => { const n = $("#drop .upload"); setText(n, text); n?.classList.toggle("bad", !!bad); };
  const number = () => [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
  const put = (batch, item, onprogress) => new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `./uploads/${batch}?path=${encodeURIComponent(item.path)}`);
    request.upload.onprogress = (e) => onprogress(e.loaded);
    request.onload = () => request.status < 300 ? done() : fail(reason(request.status, request.responseText));
    request.onerror = () => fail(new Error("The upload broke off. Is the program still running?"));
    request.send(item.file);
  });
  const reason = (status, text) => {
    let detail = ""; try { detail = JSON.parse(text).detail; } catch { /* not ours */ }
    const fault = new Error(typeof detail === "string" && detail ? detail : `The upload was refused (${status}).`);
    fault.isRefusal = status === 400;
    return fault;
  };
  let queue = Promise.resolve();
  const upload = (batches, faults = []) => { queue = queue.then(() => uploadNow(batches, faults)); return queue; };
  const uploadNow = async (batches, faults) => {
    const total = batches.flat().reduce((sum, item) => sum + item.file.size, 0) || 1;
    let done = 0;
    say("Uploading …");
    for (const batch of batches) {
      const id = number();
      try {
        for (const item of batch) {
          // One file that cannot be taken does not stop the rest of its folder.
          try { await put(id, item, (loaded) => say(`Uploading: ${Math.round(100 * (done + loaded) / total)} %`)); }
          catch (fault) { if (batch.length === 1 || !fault.isRefusal) throw fault; faults.push(`${item.path}: ${fault.message}`); }
          done += item.file.size;
        }
        const end = await fetch(`./uploads/${id}`, { method: "POST" });
        if (!end.ok) throw reason(end.status, await end.text());
      } catch (fault) { faults.push(`${batch[0]?.path ?? "File"}: ${fault.message}`); }
    }
    say(faults.join(" "), faults.length > 0);
  };
  const walk = async (entry, prefix, out, faults) => {
    if (entry.isFile) {
      // One file that cannot be read does not stop the rest of its folder.
      try { out.push({ file: await new Promise((ok, no) => entry.file(ok, no)), path: prefix + entry.name }); }
      catch { faults.push(`${prefix}${entry.name} could not be read from the disk.`); }
    } else if (prefix && SKIPPED.has(entry.name)) {
      // Named, so that it is listed as left out, but not sent.
      out.push({ file: new File([], "…"), path: `${prefix}${entry.name}/…` });
    } else {
      const reader = entry.createReader();
      for (;;) {
        const entries = await new Promise((ok, no) => reader.readEntries(ok, no));
        if (!entries.length) break;
        for (const child of entries) await walk(child, `${prefix}${entry.name}/`, out, faults);
      }
    }
  };
  const dragging = (is) => document.documentElement.classList.toggle("dragging", is);
  addEventListener("dragover", (e) => { if ([...e.dataTransfer.types].includes("Files")) { e.preventDefault(); dragging(true); } });
  addEventListener("dragleave", (e) => { if (!e.relatedTarget) dragging(false); });
  addEventListener("drop", async (e) => {
    dragging(false);
    if (!e.dataTransfer.files.length) return;
    e.preventDefault(); e.stopPropagation();
    // Both lists are emptied at the first await.
    const entries = [...e.dataTransfer.items].map((i) => i.webkitGetAsEntry?.()).filter(Boolean);
    const files = [...e.dataTransfer.files];
    const batches = [], faults = [];
    if (entries.length) for (const entry of entries) {
      const out = [], known = faults.length;
      try { await walk(entry, "", out, faults); } catch { faults.push(`${entry.name} could not be read from the disk.`); }
      if (out.length) batches.push(out);
      else if (faults.length === known) faults.push(`${entry.name} is an empty folder: there is nothing to read in it.`);
    }
    else for (const file of files) batches.push([{ file, path: file.name }]);
    if (batches.length || faults.length) upload(batches, faults);
  }, true);
  // A long paste is a document, not a question.
  let pasted = 0;
  document.addEventListener("paste", (e) => {
    const text = e.clipboardData?.getData("text/plain") ?? "";
    if (text.length <= 4000 || !e.target.matches?.("#question textarea")) return;
    e.preventDefault(); e.stopPropagation();
    const name = `Pasted text ${++pasted}.txt`;
    upload([[{ file: new File([text], name), path: name }]]);
  }, true);
  document.addEventListener("change", (e) => {
    if (!e.target.matches?.("#drop input[type=file]")) return;
    const batches = [...e.target.files].map((file) => [{ file, path: file.name }]);
    e.target.value = "";
    if (batches.length) upload(batches);
  });
  document.addEventListener("click", (e) => {
    const remove = e.target.closest?.("[data-remove]");
    if (remove) fetch(`./documents/${remove.dataset.remove}`, { method: "DELETE" });
  });
  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape") $("#stop:not([disabled])")?.click();
    if ((e.key === "Enter" || e.key === " ") && e.target.matches?.("#drop .drop-area")) { e.preventDefault(); $("#drop input").click(); }
    // While a run is on, Enter must not send: the words stay in the box.
    if (e.key === "Enter" && !e.shiftKey && e.target.matches?.("#question textarea") && $("#send")?.disabled) { e.preventDefault(); e.stopPropagation(); }
  }, true);

  // Gradio draws the page after this script has begun, and names too few of its buttons.
  new MutationObserver(() => {
    for (const b of document.querySelectorAll("button:not([aria-label])")) if (!b.textContent.trim()) b.setAttribute("aria-label", b.title || "Button");
    if (state && !$("#send")?.dataset.painted && $("#live .answer") && $("#send")) { $("#send").dataset.painted = "1"; paintedDocuments = ""; paint(); paintMemory(); }
    keep();
  }).observe(document.documentElement, { childList: true, subtree: true });
  document.addEventListener("visibilitychange", attach);
  attach();
})();
