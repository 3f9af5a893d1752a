/* Shows and hides parts of the page: tabs beside the chat, and one part at a time on phones. */
import { $, button, element, on, root, send, typeInto } from "./core.js";
import * as words from "./wording.js";

const aside = (name) => {
  root.dataset.aside = name;
  for (const tab of document.querySelectorAll("#aside-tabs [data-aside]"))
    tab.setAttribute("aria-selected", String(tab.dataset.aside === name));
  if (name === "settings") models();
};
const tab = (name) => {
  root.dataset.tab = name;
  for (const one of document.querySelectorAll("#tabs [data-tab]")) {
    if (one.dataset.tab === name) one.setAttribute("aria-current", "true");
    else one.removeAttribute("aria-current");
  }
  if (name === "memory" || name === "settings") aside(name);
};

// The catalogue takes the server a few seconds, so the page requests it when it is first opened.
let isAsked = false;
const models = async () => {
  if (isAsked) return;
  isAsked = true;
  $("#models .list").replaceChildren(element("li", "", words.WEIGHING));
  const list = await send("GET", "./models");
  if (!list) {
    isAsked = false;
    $("#models .list").replaceChildren();
    return;
  }
  $("#models .list").replaceChildren(
    ...list.map((model) => {
      const item = element("li", model.fits_tokens ? "" : "misfit");
      const input = () => $("#setting-model input, #setting-model textarea");
      const use = button(
        words.USE,
        () => {
          typeInto(input(), model.source);
          input().focus();
        },
        `${words.USE} ${model.name}`,
      );
      const text = element("div");
      text.append(
        element("b", "", model.name),
        element("span", "", ` ${model.good_for}`),
        element("small", "", words.fits(model)),
      );
      item.append(text, use);
      return item;
    }),
  );
};

export const start = () => {
  aside("memory");
  tab("chat");
  for (const one of document.querySelectorAll("#aside-tabs [data-aside]"))
    one.onclick = () => aside(one.dataset.aside);
  for (const one of document.querySelectorAll("#tabs [data-tab]"))
    one.onclick = () => tab(one.dataset.tab);
  $("#top .model").onclick = () => {
    aside("settings");
    tab("settings");
  };
  on("tab", tab);
  // A wide screen shows everything except the settings.
  matchMedia("(min-width: 701px)").addEventListener("change", () => tab("chat"));
};
