/* The viewer beside the chat: a page as printed or a file with line numbers, the quoted passage marked,
   and the exact text that the model sees. */
import { $, element, emit, on, root, send, setText } from "./core.js";
import { find, tick } from "./parts.js";
import * as words from "./wording.js";

let at = { id: "", number: 0, quote: "" },
  part = null,
  shows = "page",
  zoom = 1,
  before = null,
  turn = 0;
const card = () => $("#viewer .card");
const isOpen = () => root.dataset.viewing === "true";

export const view = async (id, number, quote) => {
  const mine = ++turn;
  const found = await send("GET", `./documents/${id}/parts/${number}`);
  if (!found || mine !== turn) return;
  if (!isOpen()) before = document.activeElement;
  at = { id, number, quote: quote ?? "" };
  part = found;
  root.dataset.viewing = "true";
  paint();
  card().focus({ preventScroll: true });
  emit("viewed", at);
};

export const close = () => {
  if (!isOpen()) return;
  turn += 1;
  root.dataset.viewing = "false";
  $("#viewer img").removeAttribute("src");
  // The tree may have redrawn its row in the meantime.
  (before?.isConnected ? before : document.getElementById(before?.id))?.focus();
  emit("viewed", null);
};

const paint = () => {
  const box = card(),
    isPicture = part.is_picture && shows === "page";
  setText($(".label", box), part.label);
  setText($(".document", box), part.document === part.label ? "" : part.document);
  $(".goto", box).value = String(at.number + 1);
  setText($(".total", box), `of ${part.total.toLocaleString("en")}`);
  $("[data-act=before]", box).disabled = at.number === 0;
  $("[data-act=next]", box).disabled = at.number + 1 >= part.total;
  setText($(".doubt", box), part.doubt);
  box.classList.toggle("has-picture", part.is_picture);
  for (const tab of box.querySelectorAll("[data-show]"))
    tab.setAttribute("aria-selected", String(tab.dataset.show === (isPicture ? "page" : "text")));
  $(".page", box).hidden = !isPicture;
  $(".text", box).hidden = isPicture;
  $(".zoom", box).hidden = !isPicture;
  $(".extractor", box).hidden = !part.extractor;
  $(".extractor select", box).value = part.extractor || "pdfium";
  setText($("[data-act=choice]", box), part.is_chosen ? words.LEAVE_OUT : words.PUT_IN);
  if (isPicture) paintPage();
  else paintText();
};

const paintPage = async () => {
  const box = card(),
    image = $("img", box),
    places = $(".places", box),
    mine = turn;
  $(".page", box).style.width = `${100 * zoom}%`;
  image.alt = `${part.label} of ${part.document}`;
  const width = Math.min(
    2400,
    Math.round(
      (Math.max(300, $(".sheet", box).clientWidth) * zoom * Math.min(2, devicePixelRatio)) / 100,
    ) * 100,
  );
  const address = `./documents/${at.id}/pages/${at.number}.png?width=${width}`;
  places.replaceChildren();
  if (image.getAttribute("src") !== address) {
    image.classList.add("loading");
    image.onload = () => image.classList.remove("loading");
    image.onerror = () => {
      if (mine === turn && part) {
        part.is_picture = false;
        paint();
      }
    };
    image.src = address;
  }
  if (!at.quote) return;
  const boxes = await send(
    "GET",
    `./documents/${at.id}/pages/${at.number}/places?words=${encodeURIComponent(at.quote.slice(0, 4000))}`,
  );
  if (mine !== turn) return;
  if (!boxes?.length) return;
  places.replaceChildren(
    ...boxes.map(([left, top, wide, high]) => {
      const place = element("mark");
      Object.assign(place.style, {
        left: `${100 * left}%`,
        top: `${100 * top}%`,
        width: `${100 * wide}%`,
        height: `${100 * high}%`,
      });
      return place;
    }),
  );
  const go = () => places.firstChild?.scrollIntoView({ block: "center" });
  if (image.complete) go();
  else image.addEventListener("load", go, { once: true });
};

// Draws the text: syntax colours, line numbers, and the quoted passage across all of them.
const paintText = () => {
  const text = $(".text", card()),
    place = at.quote ? placeOf(part.text, at.quote) : null;
  text.classList.toggle("code", part.is_code);
  if (!part.text.trim()) {
    text.replaceChildren(element("i", "", words.NO_TEXT));
    return;
  }
  const pieces = [];
  let offset = 0;
  const add = (kind, piece) => {
    const cuts = [0, piece.length];
    if (place)
      for (const cut of place)
        if (cut > offset && cut < offset + piece.length) cuts.push(cut - offset);
    cuts.sort((a, b) => a - b);
    for (let n = 0; n + 1 < cuts.length; n++) {
      const inner = piece.slice(cuts[n], cuts[n + 1]),
        from = offset + cuts[n];
      const isMarked = place && from >= place[0] && from < place[1];
      pieces.push(
        isMarked || kind
          ? element(isMarked ? "mark" : "span", kind, inner)
          : document.createTextNode(inner),
      );
    }
    offset += piece.length;
  };
  for (const [kind, piece] of part.runs ?? [["", part.text]]) add(kind, piece);
  if (part.is_code) {
    const lines = element(
      "code",
      "lines",
      Array.from({ length: part.text.split("\n").length }, (_, n) => n + 1).join("\n"),
    );
    lines.setAttribute("aria-hidden", "true");
    const code = element("code");
    code.append(...pieces);
    text.replaceChildren(lines, code);
  } else text.replaceChildren(...pieces);
  const mark = $("mark", text);
  if (mark) mark.scrollIntoView({ block: "center" });
  else $(".sheet", card()).scrollTop = 0;
};

// Where some words are in a text, whatever the white space between them.
const placeOf = (text, wanted) => {
  const escaped = wanted
    .trim()
    .split(/\s+/)
    .map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const found = new RegExp(escaped.join("\\s+"), "i").exec(text);
  return found ? [found.index, found.index + found[0].length] : null;
};

const choice = async () => {
  await tick(at.id, [at.number], !part.is_chosen);
  view(at.id, at.number, at.quote);
};
const go = (number) => {
  if (Number.isInteger(number) && number >= 0 && number < part.total) view(at.id, number);
};
// The document is reread for this; its new parts arrive when that is done.
const extract = async (extractor) => {
  const before = find(at.id)?.revision;
  await send("PUT", `./documents/${at.id}/parts/${at.number}/extractor`, extractor);
  setText($("#viewer .doubt"), words.READ_ANEW);
  reread = { ...at, before, turn };
  showReread();
};
let reread = null;
const showReread = () => {
  if (!reread || reread.turn !== turn || !isOpen()) {
    reread = null;
    return;
  }
  const revision = find(reread.id)?.revision;
  if (revision === undefined || revision === reread.before) return;
  const { id, number, quote } = reread;
  reread = null;
  shows = "text";
  view(id, number, quote);
};

export const start = () => {
  const box = card();
  on("parts", showReread);
  box.onclick = (e) => {
    const act = e.target.closest("[data-act]")?.dataset.act,
      tab = e.target.closest("[data-show]")?.dataset.show;
    if (act === "close") close();
    if (act === "before") go(at.number - 1);
    if (act === "next") go(at.number + 1);
    if (act === "choice") choice();
    if (act === "larger" || act === "smaller") {
      zoom = Math.min(3, Math.max(0.5, zoom * (act === "larger" ? 1.25 : 0.8)));
      paint();
    }
    if (tab) {
      shows = tab;
      paint();
    }
  };
  $(".goto", box).onchange = (e) => go(Number(e.target.value) - 1);
  $(".extractor select", box).onchange = (e) => extract(e.target.value);
  document.addEventListener(
    "keydown",
    (e) => {
      if (!isOpen() || document.querySelector("#timeline.wide")) return;
      if (e.key === "Escape") {
        e.preventDefault();
        e.stopImmediatePropagation();
        close();
      }
      const isInside = box.contains(e.target) && !e.target.matches("input, select");
      if (isInside && (e.key === "ArrowLeft" || e.key === "PageUp")) {
        e.preventDefault();
        go(at.number - 1);
      }
      if (isInside && (e.key === "ArrowRight" || e.key === "PageDown")) {
        e.preventDefault();
        go(at.number + 1);
      }
    },
    true,
  );
};
