/* The library of prepared documents: their names, their size, and the limit on disk space. */
import { $, button, edit, element, send, setText } from "./core.js";
import * as words from "./wording.js";

let limit = "";
const report = (text) => setText($("#library .answer"), text);

const show = async () => {
  const library = await send("GET", "./library", undefined, report);
  if (!library) return;
  setText($("#library .text"), library.text);
  const quota = $("#library .quota");
  quota.hidden = library.limit === null;
  limit = $("input", quota).value = library.limit ?? "";
  $("#library .list").replaceChildren(
    ...library.entries.map((entry) => {
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
            await send("DELETE", `./library/${entry.id}`, undefined, report);
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
    if (name) await send("PUT", `./library/${entry.id}/name`, name, report);
    show();
  });

/* A lower limit may delete entries, so ask first. */
const changeQuota = async (e) => {
  e.preventDefault();
  const field = $("input", e.target),
    size = field.value,
    change = (may_delete) => send("PUT", "./library/quota", { size, may_delete }, report);
  let answer = await change(false);
  if (answer?.question && !confirm(answer.question)) {
    field.value = limit;
    return;
  }
  if (answer?.question) answer = await change(true);
  if (answer) {
    report("");
    show();
  }
};

export const start = () => {
  $("#library details").ontoggle = (e) => {
    if (e.target.open) show();
  };
  $("#library .quota").onsubmit = changeQuota;
};
