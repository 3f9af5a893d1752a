/* The conversation in this tab: the running answer, progress, buttons and scroll position. */
import {
  $,
  button,
  clockIn,
  consume,
  element,
  emit,
  on,
  root,
  send,
  setText,
  typeInto,
} from "./core.js";
import { chatId } from "./chats.js";
import { liveMarkdown } from "./markdown.js";
import { view } from "./viewer.js";
import * as words from "./wording.js";

let state = null,
  live = { run: "", text: "" },
  shown = null,
  stuck = true;

const box = () => $("#question textarea");
const setQuestion = (text) => typeInto(box(), text);

const paint = (now) => {
  state = now;
  paintHeader();
  paintProgress();
  paintButtons();
  paintLive();
  citations(state.run.is_busy ? [] : state.citations);
  const turns = `${state.chat} ${state.revision} ${state.turns}`;
  if (shown !== turns) {
    shown = turns;
    $("#refresh")?.click();
  }
  giveBack(state.run);
};

const paintHeader = () => {
  setText($("#top .model b"), state.model.name);
  setText($("#top .model span"), state.model.error ? words.MODEL_FAILED : state.model.status);
  $("#top .model").classList.toggle("bad", !!state.model.error);
};

const phase = () => {
  const run = state.run;
  if (!run.is_busy) return state.model.error ? "failed" : "idle";
  if (run.is_paused) return "paused";
  return run.phase === "idle" ? "waiting" : run.phase;
};

const paintButtons = () => {
  const busy = state.run.is_busy,
    pause = $("#pause");
  $("#send").disabled = busy || !!state.model.error;
  $("#stop").disabled = !busy;
  pause.hidden = !(busy && (state.run.phase === "reading" || state.run.is_paused));
  setText(pause, state.run.is_paused ? words.RESUME : words.PAUSE);
  root.dataset.state = phase();
};

// While a long document is read, people want to know when to come back and where it is now.
let work = null;
const until = (run) =>
  run.is_busy && run.phase === "reading" && work?.left > 10
    ? words.until(clockIn(work.left), work.place)
    : "";

let announced = "";
const paintProgress = () => {
  const progress = $("#progress"),
    run = state.run,
    bar = $(".bar", progress);
  $("i", bar).style.transform = `scaleX(${run.is_busy ? run.percent / 100 : 0})`;
  bar.setAttribute("aria-valuenow", Math.round(run.percent));
  progress.classList.toggle("busy", run.is_busy);
  setText(
    $(".line", progress),
    (run.is_held ? words.PAUSED : run.is_paused ? words.PAUSING : run.line) ||
      (run.is_answered && !run.is_busy ? "" : run.status + until(run)),
  );
  setText($(".note", progress), editing === null ? said : words.editing(editing + 1));
  // A live region that changes ten times a second is noise, so announce only start and end.
  const now = !run.is_busy
    ? run.error || (run.id ? words.DONE : "")
    : run.phase === "answering"
      ? words.ANSWERING
      : words.READING;
  if (now !== announced) {
    announced = now;
    setText($("[aria-live]", progress), now);
  }
};

// The running answer only grows at its end; finished answers are in the conversation above.
const answer = { run: "", length: 0, markdown: null };
const paintLive = () => {
  if (!state) return;
  const asked = $("#live .asked"),
    place = $("#live .answer"),
    failed = $("#live .failed");
  const run = state.run,
    hasFailed = !run.is_busy && !!run.error && !!run.question;
  // Show it here only until the conversation above has drawn it.
  const isAbove = document.querySelectorAll("#history [data-testid=bot]").length > run.turn;
  const shows =
    !isAbove &&
    (run.is_busy || hasFailed || (state.turns > run.turn && live.run === run.id && !!live.text));
  asked.hidden = !shows;
  setText(asked, shows ? run.question : "");
  failed.hidden = !hasFailed;
  setText($("p", failed), hasFailed ? run.error : "");
  place.hidden = !(shows && live.text);
  if (!shows || answer.run !== live.run || answer.length > live.text.length) {
    place.replaceChildren();
    Object.assign(answer, { run: live.run, length: 0, markdown: null });
  }
  if (shows && live.text.length > answer.length) {
    answer.markdown ??= liveMarkdown(place);
    answer.markdown.write(live.text.slice(answer.length));
    answer.length = live.text.length;
  }
  const isEmpty = !shows && state.turns === 0;
  $("#live .welcome").hidden = !isEmpty;
  paintStarters(isEmpty);
  keep();
};

const paintStarters = (isEmpty) => {
  const rows = state.documents.rows,
    starters = $("#live .starters");
  starters.hidden = !isEmpty || !rows.some((row) => row.has_parts);
  $("#live .samples").hidden = !isEmpty || rows.length > 0 || !$("#live .samples button");
  if (!starters.childElementCount) {
    starters.append(
      ...words.STARTERS.map((text) =>
        button(text, () => {
          setQuestion(text);
          box().focus();
        }),
      ),
    );
  }
};

const citations = (list) => {
  const place = $("#live .citations"),
    key = JSON.stringify(list);
  place.hidden = !list.length;
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  $("ul", place).replaceChildren(
    ...list.map((one) => {
      const item = element("li", one.found ? "" : "bad");
      if (one.place) item.append(button(one.text, () => view(...one.place, one.quote)));
      else item.textContent = one.text;
      return item;
    }),
  );
};

// User actions.

let editing = null,
  said = "",
  sent = null,
  givenBack = "";
const report = (text) => {
  said = text ?? "";
  $("#progress .note").classList.toggle("bad", !!said);
  if (state) paintProgress();
};
const request = async (method, path, data) => {
  const fault = {};
  const body = await send(method, path, data, (text) => {
    fault.text = text;
  });
  report(fault.text);
  return fault.text ? undefined : body;
};

/* Puts a question back into its box if its run was stopped before the first word. */
const giveBack = (run) => {
  if (run.is_busy || !run.is_unanswered || givenBack === run.id) return;
  givenBack = run.id;
  const isEdited = sent?.turn === run.turn;
  if (box().value || editing !== null || (run.turn < state.turns && !isEdited)) return;
  if (isEdited) editing = run.turn;
  setQuestion(run.question);
  paintProgress();
};
const ask = async () => {
  const question = box().value;
  if (!state || state.run.is_busy || state.model.error) return;
  const data = editing === null ? { question } : { question, turn: editing };
  // Empty the box at once, so that pressing Enter twice asks once; refill it after a refusal.
  setQuestion("");
  stuck = true;
  if ((await request("POST", `./chats/${chatId()}/ask`, data)) === undefined) setQuestion(question);
  else {
    editing = null;
    sent = data;
    paintProgress();
  }
};
const again = (turn, question) => {
  stuck = true;
  sent = null;
  request("POST", `./chats/${chatId()}/ask`, { turn, question });
};
const control = (what) => request("PUT", `./chats/${chatId()}/run`, what);
const edit = async (turn) => {
  const one = await request("GET", `./chats/${chatId()}/turns/${turn}`);
  if (!one) return;
  editing = turn;
  setQuestion(one.question);
  box().focus();
  paintProgress();
};
const endEditing = () => {
  editing = null;
  setQuestion("");
  paintProgress();
};
const copy = async (turn, link) => {
  const one = await request("GET", `./chats/${chatId()}/turns/${turn}`);
  if (!one) return;
  await navigator.clipboard?.writeText(one.answer).catch(() => {});
  const before = link.textContent;
  link.textContent = words.COPIED;
  setTimeout(() => {
    link.textContent = before;
  }, 1500);
};
const openCitation = async (turn, number) => {
  const one = await request("GET", `./chats/${chatId()}/turns/${turn}/citations/${number}`);
  if (one?.place) view(...one.place, one.quote);
  else if (one) report(words.NOT_THERE);
};

// We make the links in finished answers; their addresses say what to do (app/ui/views/messages.py).
const LINK = /^#(cite|edit|copy|again)-(\d+)(?:-(\d+))?$/;
document.addEventListener(
  "click",
  (e) => {
    const link = e.target.closest?.("#history a[href]");
    const match = link && LINK.exec(link.getAttribute("href"));
    if (!match) return;
    consume(e);
    const turn = Number(match[2]);
    if (match[1] === "cite") openCitation(turn, Number(match[3]));
    else if (match[1] === "edit") edit(turn);
    else if (match[1] === "copy") copy(turn, link);
    else again(turn);
  },
  true,
);

// Follow the answer if the reader is at the end; otherwise do not scroll.
const keep = () => {
  const log = $("#chat");
  if (stuck) log.scrollTop = log.scrollHeight;
};
document.addEventListener(
  "scroll",
  (e) => {
    if (e.target.id === "chat")
      stuck = e.target.scrollHeight - e.target.clientHeight - e.target.scrollTop < 40;
  },
  true,
);

const isTyping = (node) => node.matches?.("input, textarea, select, [contenteditable=true]");
document.addEventListener(
  "keydown",
  (e) => {
    if (e.key === "Enter" && !e.shiftKey && !e.isComposing && e.target === box()) {
      consume(e);
      ask();
    }
    if (e.key === "/" && !isTyping(e.target) && !e.ctrlKey && !e.metaKey) {
      e.preventDefault();
      emit("tab", "chat");
      box().focus();
    }
    if (
      e.key === "Escape" &&
      !e.defaultPrevented &&
      !document.querySelector("dialog[open]") &&
      root.dataset.viewing !== "true"
    ) {
      if (editing !== null) endEditing();
      else if (state?.run.is_busy) control("stop");
    }
  },
  true,
);

const samples = async () => {
  const names = await send("GET", "./samples");
  $("#live .samples").append(
    ...(names ?? []).map((name) =>
      button(name, () => request("POST", `./samples/${encodeURIComponent(name)}`)),
    ),
  );
  paintLive();
};

export const start = () => {
  $("#send").onclick = ask;
  $("#stop").onclick = () => control("stop");
  $("#pause").onclick = () => control(state.run.is_paused ? "resume" : "pause");
  $("#live .failed button").onclick = () => {
    const { turn, question } = state.run;
    if (turn < state.turns) again(turn, question);
    else {
      setQuestion(question);
      ask();
    }
  };
  samples();
  on("state", paint);
  on("text", (d) => {
    if (d.run !== live.run || d.start === 0) live = { run: d.run, text: "" };
    live.text = live.text.slice(0, d.start) + d.text;
    paintLive();
  });
  on("work", (view) => {
    work = view;
    if (state) paintProgress();
  });
  on("offline", (is) => {
    root.dataset.offline = is;
    if (is) setText($("#progress .line"), words.OFFLINE);
    else if (state) paintProgress();
  });
  new MutationObserver(keep).observe($("#chat"), { childList: true, subtree: true });
  new MutationObserver(paintLive).observe($("#history"), { childList: true, subtree: true });
};
