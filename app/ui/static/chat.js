/* The conversation: header, progress, the running answer, buttons, the reader's place, keys. */
import { $, button, element, on, setText } from "./core.js";
import { view } from "./viewer.js";

let state = null, live = { run: "", text: "" }, turns = null, stuck = true;

const paint = (now) => {
  state = now;
  paintHeader(); paintProgress(); paintButtons(); paintLive();
  citations(state.run.is_busy ? [] : state.citations);
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
  $("#send").disabled = busy || !!state.model.error;
  $("#stop").disabled = !busy;
  $("#new").disabled = busy;
  document.documentElement.dataset.state = busy ? (state.run.phase === "idle" ? "waiting" : state.run.phase) : "idle";
};

let announced = "";
const paintProgress = () => {
  const box = $("#progress"), run = state.run;
  $(".bar i", box).style.transform = `scaleX(${run.is_busy ? run.percent / 100 : 0})`;
  box.classList.toggle("busy", run.is_busy);
  box.classList.toggle("bad", !!run.error);
  setText($(".line", box), run.error || run.status);
  const said = run.is_busy ? (run.phase === "answering" ? "Answering" : "Reading") : (run.error || (run.id ? "Done" : ""));
  if (said !== announced) { announced = said; setText($("[aria-live]", box), said); }
};

// The running answer grows by appended text; the finished one is in the conversation above.
const paintLive = () => {
  if (!state) return;
  const asked = $("#live .asked"), answer = $("#live .answer");
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
  $("#live .welcome").hidden = shows || state.turns > 0;
  keep();
};

const citations = (list) => {
  const box = $("#live .citations"), key = JSON.stringify(list);
  box.hidden = !list.length;
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  $("ul", box).replaceChildren(...list.map((one) => {
    const item = element("li", one.found ? "" : "bad");
    if (one.place) item.append(button(one.text, () => view(...one.place, one.quote))); else item.textContent = one.text;
    return item;
  }));
};

// The reader's place: at the end the page follows the answer, elsewhere it stays put.
const keep = () => { const log = $("#chat"); if (stuck) log.scrollTop = log.scrollHeight; };
document.addEventListener("scroll", (e) => {
  if (e.target.id === "chat") stuck = e.target.scrollHeight - e.target.clientHeight - e.target.scrollTop < 40;
}, true);

document.addEventListener("keydown", (e) => {
  if (e.key === "Escape") $("#stop:not([disabled])")?.click();
  // While a run is on, Enter must not send: the words stay in the box.
  if (e.key === "Enter" && !e.shiftKey && e.target.matches?.("#question textarea") && $("#send")?.disabled) { e.preventDefault(); e.stopPropagation(); }
}, true);

export const start = () => {
  on("state", paint);
  on("text", (d) => {
    if (d.run !== live.run || d.start === 0) live = { run: d.run, text: "" };
    live.text = live.text.slice(0, d.start) + d.text;
    paintLive();
  });
  on("offline", (is) => {
    document.documentElement.dataset.offline = is;
    if (is) setText($("#progress .line"), "The program does not answer. Is it still running? This page reconnects by itself.");
    else if (state) paintProgress();
  });
  new MutationObserver(keep).observe($("#chat"), { childList: true, subtree: true });
};
