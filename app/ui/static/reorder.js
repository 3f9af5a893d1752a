/* Reorders documents by dragging a card by its head to before or after another card. */
import { element, send } from "./core.js";

// Our own type, so that dragged text or files are not mistaken for a card.
const TYPE = "application/x-mom-document";
const isCard = (e) => [...e.dataTransfer.types].includes(TYPE);

export const put = (ids, id, at) => {
  const rest = ids.filter((one) => one !== id);
  rest.splice(at, 0, id);
  if (rest.join() !== ids.join()) send("PUT", "./documents/order", rest);
};

/* Lets the cards in a list be dragged by their `.head`; each card has a `data-id`. */
export const start = (list) => {
  const line = element("li", "here");
  line.setAttribute("aria-hidden", "true");
  let dragged = null;
  const cards = () => [...list.children].filter((one) => one.dataset.id);
  const end = () => {
    line.remove();
    dragged?.classList.remove("dragged");
    dragged = null;
  };
  list.addEventListener("dragstart", (e) => {
    const card = e.target.closest?.("li[data-id]");
    if (!card || !e.target.draggable) return;
    dragged = card;
    card.classList.add("dragged");
    e.dataTransfer.setData(TYPE, card.dataset.id);
    e.dataTransfer.effectAllowed = "move";
  });
  list.addEventListener("dragover", (e) => {
    if (!isCard(e)) return;
    e.preventDefault();
    e.dataTransfer.dropEffect = "move";
    const below =
      cards().find((card) => {
        const box = card.getBoundingClientRect();
        return e.clientY < box.y + box.height / 2;
      }) ?? null;
    if (line.nextSibling !== below || !line.isConnected) list.insertBefore(line, below);
  });
  list.addEventListener("drop", (e) => {
    if (!isCard(e) || !line.isConnected) return;
    e.preventDefault();
    const id = e.dataTransfer.getData(TYPE),
      ids = cards().map((card) => card.dataset.id);
    const isAbove = (card) => card.compareDocumentPosition(line) & Node.DOCUMENT_POSITION_FOLLOWING;
    if (ids.includes(id))
      put(ids, id, cards().filter((card) => card.dataset.id !== id && isAbove(card)).length);
    end();
  });
  list.addEventListener("dragleave", (e) => {
    if (!list.contains(e.relatedTarget)) line.remove();
  });
  list.addEventListener("dragend", end);
};
