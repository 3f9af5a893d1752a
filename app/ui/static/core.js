/* What all panels share: small DOM helpers, requests to our routes, and the one stream of updates.
   Text from outside is only ever set as text, never as HTML. */
import * as words from "./wording.js";

export const $ = (selector, from = document) => from.querySelector(selector);

export const setText = (node, text) => {
  if (node && node.textContent !== text) node.textContent = text;
};

export const element = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

export const button = (text, act, label) => {
  const node = element("button", "small", text);
  node.type = "button";
  node.onclick = act;
  if (label) {
    node.title = label;
    node.setAttribute("aria-label", label);
  }
  return node;
};

/* A field in the place of a name. `done` hears the new one when it is left, "" if all stays as it was. */
export const edit = (place, name, label, most, done) => {
  const input = element("input");
  input.value = name;
  input.setAttribute("aria-label", label);
  input.maxLength = most;
  const end = (isKept) => {
    input.onblur = null;
    const value = input.value.trim();
    done(isKept && value !== name ? value : "");
  };
  input.onkeydown = (e) => {
    if (e.key === "Enter") {
      e.preventDefault();
      end(true);
    }
    if (e.key === "Escape") {
      e.preventDefault();
      e.stopPropagation();
      end(false);
    }
  };
  input.onblur = () => end(true);
  place.replaceChildren(input);
  input.focus();
  input.select();
};

/* The time of day so many seconds from now. */
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hour12: false });
export const clockIn = (seconds) => clock.format(Date.now() + 1000 * seconds);

/* A line beside the place for dropping: what was refused, and why. */
export const say = (text, bad = !!text) => {
  const node = $("#drop .upload");
  setText(node, text);
  node?.classList.toggle("bad", bad);
};

/* One request. Refusals are told; null is their answer, and that of an empty one. */
export const send = async (method, path, data, tell = say) => {
  const answer = await fetch(
    path,
    data === undefined
      ? { method }
      : { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(data) },
  ).catch(() => null);
  if (!answer) {
    tell(words.NO_ANSWER);
    return null;
  }
  if (answer.status === 204) {
    tell("");
    return null;
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    tell(typeof body.detail === "string" ? body.detail : words.refused(answer.status));
    return null;
  }
  return body;
};

/* The stream. `on(kind, act)` hears every update of that kind, and the last one at once.
   Browsers allow six connections to a server: a hidden tab gives its own back. */
const hearers = new Map(),
  last = new Map();
export const on = (kind, act) => {
  if (!hearers.has(kind)) {
    hearers.set(kind, []);
    listen(kind);
  }
  hearers.get(kind).push(act);
  if (last.has(kind)) act(last.get(kind));
};
export const emit = (kind, data) => {
  last.set(kind, data);
  for (const act of hearers.get(kind) ?? []) act(data);
};

let stream = null,
  address = () => "./events";
// Of the state only what changed is sent: a run that goes on does not send the documents again.
const merged = (old, news) => {
  const all = { ...old };
  for (const [key, value] of Object.entries(news))
    all[key] = value?.constructor === Object ? { ...old?.[key], ...value } : value;
  return all;
};
const received = (kind, data) => emit(kind, kind === "state" ? merged(last.get(kind), data) : data);
const listen = (kind) => stream?.addEventListener(kind, (e) => received(kind, JSON.parse(e.data)));
export const attach = (url) => {
  if (url) address = url;
  stream?.close();
  stream = null;
  if (document.hidden) return;
  stream = new EventSource(address());
  for (const kind of hearers.keys()) listen(kind);
  stream.onerror = () => emit("offline", true);
  stream.onopen = () => emit("offline", false);
};
document.addEventListener("visibilitychange", () => attach());
// A waiting run loses its place in line when its tab has been gone for five minutes.
setInterval(() => {
  const chat = last.get("state")?.chat;
  if (document.hidden && chat)
    fetch(`./chats/${encodeURIComponent(chat)}/watch`, { method: "POST" }).catch(() => null);
}, 60_000);
