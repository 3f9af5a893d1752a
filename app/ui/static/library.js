/* Prepared documents: what was read and kept, their names, and how much of the disk they may take. */
import { $, button, edit, element, send, setText } from "./core.js";
import * as words from "./wording.js";

let limit = "";
const tell = (text) => setText($("#library .answer"), text);

const show = async () => {
  const told = await send("GET", "./library", undefined, tell);
  if (!told) return;
  setText($("#library .text"), told.text);
  const quota = $("#library .quota");
  quota.hidden = told.limit === null;
  limit = $("input", quota).value = told.limit ?? "";
  $("#library .list").replaceChildren(
    ...told.entries.map((entry) => {
      const item = element("li"),
        text = element("div"),
        name = element("b", "", entry.name);
      text.append(name, element("small", entry.is_bad ? "bad" : "", entry.facts));
      item.append(
        text,
        button("✎", () => rename(name, entry), words.rename(entry.name)),
        button(
          words.FORGET,
          async () => {
            await send("DELETE", `./library/${entry.id}`, undefined, tell);
            show();
          },
          words.forget(entry.name),
        ),
      );
      return item;
    }),
  );
};

const rename = (place, entry) =>
  edit(place, entry.name, words.rename(entry.name), 120, async (name) => {
    if (name) await send("PUT", `./library/${entry.id}/name`, name, tell);
    show();
  });

/* Entries that have no room any more are deleted, so a person is asked first. */
const changeQuota = async (e) => {
  e.preventDefault();
  const field = $("input", e.target),
    size = field.value,
    change = (may_delete) => send("PUT", "./library/quota", { size, may_delete }, tell);
  let answer = await change(false);
  if (answer?.question && !confirm(answer.question)) {
    field.value = limit;
    return;
  }
  if (answer?.question) answer = await change(true);
  if (answer) {
    tell("");
    show();
  }
};

export const start = () => {
  $("#library details").ontoggle = (e) => {
    if (e.target.open) show();
  };
  $("#library .quota").onsubmit = changeQuota;
};
