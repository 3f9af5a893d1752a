/* A window on the exact text that the model sees. */
import { $, button, element, emit, send } from "./core.js";

let viewer = null;
export const view = async (id, number, words) => {
  const part = await send("GET", `./documents/${id}/parts/${number}`);
  if (!part) return;
  if (!viewer) { viewer = element("dialog", "viewer"); document.body.append(viewer); }
  const head = element("div", "head");
  head.append(element("b", "", part.label), element("span", "bad", part.doubt),
    button("‹", () => view(id, number - 1), "Previous part"), button("›", () => view(id, number + 1), "Next part"),
    button("Leave out", () => { leaveOut(id, number); viewer.close(); }, "Leave this part out"),
    button("×", () => viewer.close(), "Close"));
  const text = element("pre"), place = words ? normal(part.text, words) : null;
  if (place) { const mark = element("mark", "", part.text.slice(...place)); text.append(part.text.slice(0, place[0]), mark, part.text.slice(place[1])); }
  else text.textContent = part.text || "This part has no text.";
  viewer.replaceChildren(head, element("p", "note", "What the model sees:"), text);
  if (!viewer.open) viewer.showModal();
  $("mark", viewer)?.scrollIntoView({ block: "center" });
};
// Where some words stand in a text, whatever the white space between them.
const normal = (text, words) => {
  const escaped = words.trim().split(/\s+/).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const found = new RegExp(escaped.join("\\s+"), "i").exec(text);
  return found ? [found.index, found.index + found[0].length] : null;
};


const leaveOut = async (id, number) => {
  const parts = await send("GET", `./documents/${id}/parts`);
  if (!parts) return;
  parts[number].is_chosen = false;
  await send("PUT", `./documents/${id}/choice`, { unticked: parts.flatMap((part, n) => (part.is_chosen ? [] : [n])) });
  emit("chosen", id);
};
