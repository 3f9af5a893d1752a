/* Shared by all panels: small DOM helpers, requests to our routes, and the stream of updates.
   Text from outside is always set as text, never as HTML. */
import * as words from "./wording.js";

export const root = document.documentElement;

export const $ = (selector, from = document) => from.querySelector(selector);

export const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);

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

/* Fills a field as if a person had typed there, so that Gradio notices. */
export const typeInto = (field, text) => {
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
};

/* Places a part of a stacked bar; `left` and `width` are percentages. */
export const placePart = (part, left, width) => {
  part.style.left = `${left}%`;
  part.style.width = `${width}%`;
};

/* Keeps an event from the browser and from all other handlers further down. */
export const consume = (e) => {
  e.preventDefault();
  e.stopPropagation();
};

/* Wraps `act` so that it runs at most once per frame, however often it is called. */
export const oncePerFrame = (act) => {
  let isDue = false;
  return () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      act();
    });
  };
};

/* Replaces a name with a text field. On leaving it, `done` gets the new name, or "" if unchanged. */
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
      consume(e);
      end(false);
    }
  };
  input.onblur = () => end(true);
  place.replaceChildren(input);
  input.focus();
  input.select();
};

/* The time of day `seconds` from now. */
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hour12: false });
export const clockIn = (seconds) => clock.format(Date.now() + 1000 * seconds);

/* Shows a message under the drop area: what was refused, and why. */
export const say = (text, bad = !!text) => {
  const node = $("#drop .upload");
  setText(node, text);
  node?.classList.toggle("bad", bad);
};

/* Sends one request and returns its JSON; null if it was refused or the answer is empty. `report`
   gets the reason for a refusal. */
export const send = async (method, path, data, report = say) => {
  const answer = await fetch(
    path,
    data === undefined
      ? { method }
      : { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(data) },
  ).catch(() => null);
  if (!answer) {
    report(words.NO_ANSWER);
    return null;
  }
  if (answer.status === 204) {
    report("");
    return null;
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    report(typeof body.detail === "string" ? body.detail : words.refused(answer.status));
    return null;
  }
  return body;
};

/* The stream. `on(kind, act)` calls `act` with the latest update of that kind, if there is one, and
   with every later one. Browsers allow six connections per server, so a hidden tab closes its own. */
const listeners = new Map(),
  last = new Map();
export const on = (kind, act) => {
  if (!listeners.has(kind)) {
    listeners.set(kind, []);
    listen(kind);
  }
  listeners.get(kind).push(act);
  if (last.has(kind)) act(last.get(kind));
};
export const emit = (kind, data) => {
  last.set(kind, data);
  for (const act of listeners.get(kind) ?? []) act(data);
};

let stream = null,
  address = () => "./events";
// The server sends only the parts of the state that changed: a run does not resend the documents.
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
  for (const kind of listeners.keys()) listen(kind);
  stream.onerror = () => emit("offline", true);
  stream.onopen = () => emit("offline", false);
};
document.addEventListener("visibilitychange", () => attach());
// A run loses its place in the queue when its tab is gone for five minutes; a hidden tab is not gone.
setInterval(() => {
  const chat = last.get("state")?.chat;
  if (document.hidden && chat)
    fetch(`./chats/${encodeURIComponent(chat)}/watch`, { method: "POST" }).catch(() => null);
}, 60_000);
