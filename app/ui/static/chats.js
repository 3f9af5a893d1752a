/* The list of conversations, and which one this tab shows. */
import { $, attach, button, edit, element, on, root, send } from "./core.js";
import * as words from "./wording.js";

const KEY = "mom.chat";
// Each tab keeps its own conversation; a new tab opens the one shown last.
const stored = () => sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";
const keep = (id) => {
  sessionStorage.setItem(KEY, id);
  localStorage.setItem(KEY, id);
};
export const chatId = () => root.dataset.chat ?? "";
export const open = (id) => {
  keep(id);
  root.dataset.chat = id;
  attach();
};

let painted = "";
const paint = (state) => {
  // The server decides which one to show, because the requested one may be gone.
  if (state.chat !== root.dataset.chat) {
    root.dataset.chat = state.chat;
    keep(state.chat);
  }
  const key = JSON.stringify([state.chat, state.chats]);
  if (key === painted) return;
  painted = key;
  const focused = document.activeElement?.dataset?.chat;
  $("#chats .list").replaceChildren(
    ...state.chats.map((chat) => {
      const item = element("li", chat.id === state.chat ? "current" : "");
      const name = button(chat.name, () => open(chat.id), chat.name);
      name.dataset.chat = chat.id;
      if (chat.id === state.chat) name.setAttribute("aria-current", "true");
      item.append(name);
      if (chat.is_busy) item.append(element("span", "busy", "…"));
      const tools = element("span", "tools"),
        link = element("a", "small", "⤓");
      link.href = `./chats/${chat.id}/export`;
      link.title = words.exported(chat.name);
      link.setAttribute("aria-label", link.title);
      link.setAttribute("download", "");
      tools.append(
        button("✎", () => rename(item, chat), words.rename(chat.name)),
        link,
        button(
          "×",
          () => {
            if (confirm(words.confirmDelete(chat.name))) send("DELETE", `./chats/${chat.id}`);
          },
          words.remove(chat.name),
        ),
      );
      item.append(tools);
      return item;
    }),
  );
  if (focused) $(`#chats [data-chat="${focused}"]`)?.focus();
};

const rename = (item, chat) =>
  edit(item, chat.name, words.rename(chat.name), 80, async (name) => {
    painted = "";
    if (name) await send("PUT", `./chats/${chat.id}/name`, name);
    else attach();
  });

export const start = () => {
  root.dataset.chat = stored();
  $("#new").onclick = async () => {
    const begun = await send("POST", "./chats");
    if (begun) {
      open(begun.id);
      $("#question textarea").focus();
    }
  };
  on("state", paint);
};
