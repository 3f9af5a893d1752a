/* Starts the panels once Gradio has drawn the page, then opens the stream. */
import { $, attach } from "./core.js";
import * as chat from "./chat.js";
import * as chats from "./chats.js";
import * as documents from "./documents.js";
import * as forecast from "./forecast.js";
import * as layout from "./layout.js";
import * as library from "./library.js";
import * as meter from "./meter.js";
import * as memory from "./memory.js";
import * as parts from "./parts.js";
import * as timeline from "./timeline.js";
import * as tokenMap from "./token_map.js";
import * as tree from "./tree.js";
import * as viewer from "./viewer.js";
import "./upload.js";

const PANELS = [
  layout,
  library,
  chats,
  documents,
  meter,
  tree,
  tokenMap,
  viewer,
  parts,
  forecast,
  memory,
  timeline,
  chat,
];
const DRAWN = [
  "#send",
  "#live .answer",
  "#tree",
  "#gauge-host .gauge",
  "#timeline .charts",
  "#forecast .card",
  "#map .strips",
  "#viewer .card",
  "#progress .line",
  "#chats .list",
  "#aside-tabs button",
  "#tabs nav",
  "#library .quota",
];

// Gradio leaves some of its icon buttons without an accessible name.
const nameButtons = () => {
  for (const b of document.querySelectorAll("button:not([aria-label])"))
    if (b.childElementCount && !b.textContent.trim())
      b.setAttribute("aria-label", b.title || "Button");
};

let isStarted = false;
const look = () => {
  nameButtons();
  if (isStarted || !DRAWN.every((selector) => $(selector))) return;
  isStarted = true;
  for (const panel of PANELS) panel.start();
  attach(() => `./events?chat=${encodeURIComponent(chats.chatId())}`);
};
new MutationObserver(look).observe(document.documentElement, { childList: true, subtree: true });
look();
