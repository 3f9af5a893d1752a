/* Files on their way in: dropped anywhere on the page (folders with their paths), chosen, or pasted. */
import { $, say } from "./core.js";
import * as words from "./wording.js";

const SKIPPED = new Set([
  ".git",
  ".hg",
  ".svn",
  "node_modules",
  "__pycache__",
  ".venv",
  "venv",
  "__MACOSX",
]);
const number = () =>
  [...crypto.getRandomValues(new Uint8Array(16))]
    .map((b) => b.toString(16).padStart(2, "0"))
    .join("");
const put = (batch, item, onprogress) =>
  new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `./uploads/${batch}?path=${encodeURIComponent(item.path)}`);
    request.upload.onprogress = (e) => onprogress(e.loaded);
    request.onload = () =>
      request.status < 300 ? done() : fail(reason(request.status, request.responseText));
    request.onerror = () => fail(new Error(words.UPLOAD_BROKEN));
    request.send(item.file);
  });
const reason = (status, text) => {
  let detail = "";
  try {
    detail = JSON.parse(text).detail;
  } catch {
    /* not ours */
  }
  const fault = new Error(typeof detail === "string" && detail ? detail : words.refused(status));
  fault.isRefusal = status === 400;
  return fault;
};
let queue = Promise.resolve();
const upload = (batches, faults = []) => {
  queue = queue.then(() => uploadNow(batches, faults));
  return queue;
};
const uploadNow = async (batches, faults) => {
  const total = batches.flat().reduce((sum, item) => sum + item.file.size, 0) || 1;
  let done = 0;
  say(words.UPLOADING, false);
  for (const batch of batches) {
    const id = number();
    try {
      for (const item of batch) {
        // One file that cannot be taken does not stop the rest of its folder.
        try {
          await put(id, item, (loaded) =>
            say(words.uploaded(Math.round((100 * (done + loaded)) / total)), false),
          );
        } catch (fault) {
          if (batch.length === 1 || !fault.isRefusal) throw fault;
          faults.push(`${item.path}: ${fault.message}`);
        }
        done += item.file.size;
      }
      const end = await fetch(`./uploads/${id}`, { method: "POST" });
      if (!end.ok) throw reason(end.status, await end.text());
    } catch (fault) {
      faults.push(`${batch[0]?.path ?? "File"}: ${fault.message}`);
    }
  }
  say(faults.join(" "));
};
const walk = async (entry, prefix, out, faults) => {
  if (entry.isFile) {
    // One file that cannot be read does not stop the rest of its folder.
    try {
      out.push({
        file: await new Promise((ok, no) => entry.file(ok, no)),
        path: prefix + entry.name,
      });
    } catch {
      faults.push(words.unreadable(`${prefix}${entry.name}`));
    }
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
addEventListener("dragover", (e) => {
  if ([...e.dataTransfer.types].includes("Files")) {
    e.preventDefault();
    dragging(true);
  }
});
addEventListener("dragleave", (e) => {
  if (!e.relatedTarget) dragging(false);
});
addEventListener(
  "drop",
  async (e) => {
    dragging(false);
    if (!e.dataTransfer.files.length) return;
    e.preventDefault();
    e.stopPropagation();
    // Both lists are emptied at the first await.
    const entries = [...e.dataTransfer.items].map((i) => i.webkitGetAsEntry?.()).filter(Boolean);
    const files = [...e.dataTransfer.files];
    const batches = [],
      faults = [];
    if (entries.length)
      for (const entry of entries) {
        const out = [],
          known = faults.length;
        try {
          await walk(entry, "", out, faults);
        } catch {
          faults.push(words.unreadable(entry.name));
        }
        if (out.length) batches.push(out);
        else if (faults.length === known) faults.push(words.emptyFolder(entry.name));
      }
    else for (const file of files) batches.push([{ file, path: file.name }]);
    if (batches.length || faults.length) upload(batches, faults);
  },
  true,
);
// A long paste is a document, not a question.
let pasted = 0;
document.addEventListener(
  "paste",
  (e) => {
    const text = e.clipboardData?.getData("text/plain") ?? "";
    if (text.length <= 4000 || !e.target.matches?.("#question textarea")) return;
    e.preventDefault();
    e.stopPropagation();
    const name = words.pasted(++pasted);
    upload([[{ file: new File([text], name), path: name }]]);
  },
  true,
);
document.addEventListener("change", (e) => {
  if (!e.target.matches?.("#drop input[type=file]")) return;
  const batches = [...e.target.files].map((file) => [{ file, path: file.name }]);
  e.target.value = "";
  if (batches.length) upload(batches);
});
document.addEventListener(
  "keydown",
  (e) => {
    if ((e.key === "Enter" || e.key === " ") && e.target.matches?.("#drop .drop-area")) {
      e.preventDefault();
      $("#drop input").click();
    }
  },
  true,
);
