/* How the context window is used: documents, conversation, room for the answer. */
import { $, element, on, setText, sum } from "./core.js";
import * as words from "./wording.js";

const paint = ({ parts, level }) => {
  const meter = $("#meter"),
    used = sum(parts.map(([, percent]) => percent));
  meter.hidden = false;
  meter.dataset.level = level;
  // If it is over 100 %, show a full bar and scale each part.
  const scale = used > 100 ? 100 / used : 1;
  for (const [name, percent] of parts)
    $(`.track .${name}`, meter).style.width = `${percent * scale}%`;
  meter.setAttribute("aria-valuenow", Math.min(100, Math.round(used)));
  meter.setAttribute(
    "aria-valuetext",
    [
      words.meter(used, level),
      ...parts.map(([name, , tokens]) => `${words.METER[name]} ${tokens}`),
    ].join(", "),
  );
  $(".legend", meter).replaceChildren(
    ...parts.map(([name, , tokens]) => {
      const item = element("li", name);
      item.append(element("i"), element("span", "", words.METER[name]), element("b", "", tokens));
      return item;
    }),
  );
  setText($("#documents .used"), `${Math.round(used)} %`);
};

export const start = () =>
  on("forecast", (view) => {
    if (view.meter) paint(view.meter);
  });
