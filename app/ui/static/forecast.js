/* The forecast card: what the next question will cost, and how accurate the last forecast was. */
import { $, clockIn, element, on, placePart, setText } from "./core.js";
import { duration } from "./chart.js";
import * as words from "./wording.js";

const bar = (one) => {
  const row = element("div", `bar-row${one.is_over ? " over" : ""}`),
    track = element("div", "bar");
  const head = element("div", "names");
  head.append(element("span", "", one.name), element("b", "", one.text));
  let left = 0;
  for (const [kind, percent] of one.parts) {
    const part = element("i", kind);
    placePart(part, left, percent);
    left += percent;
    track.append(part);
  }
  if (one.limit !== null && one.limit < 99.9) {
    const limit = element("u", "limit");
    limit.style.left = `${one.limit}%`;
    track.append(limit);
  }
  if (one.standard) {
    const mark = element("u", "standard");
    mark.style.left = `${Math.min(99.4, one.standard)}%`;
    track.append(mark);
  }
  row.append(head);
  if (one.parts.length) row.append(track);
  if (one.made_of) row.append(element("div", "made-of", one.made_of));
  if (one.standard_text) row.append(element("div", "standard-text", one.standard_text));
  return row;
};

const paint = (view) => {
  const card = $("#forecast .card");
  card.dataset.state = view.state;
  setText($(".headline", card), view.headline ?? "");
  setText($(".change", card), view.change ?? "");
  $(".figures", card).replaceChildren(
    ...(view.figures ?? []).map(([value, name]) => {
      const figure = element("div");
      figure.append(element("b", "", value), element("span", "", name));
      return figure;
    }),
  );
  setText($(".reuse", card), view.reuse ?? "");
  setText($(".sentence", card), view.sentence ?? "");
  setText($(".reason", card), view.reason ?? "");
  $(".bars", card).replaceChildren(...(view.bars ?? []).map(bar));
  const compared = $(".compared", card);
  compared.hidden = !view.compared.length;
  $("tbody", compared).replaceChildren(
    ...view.compared.map(([name, forecast, real]) => {
      const row = element("tr"),
        head = element("th", "", name);
      head.scope = "row";
      row.append(head, element("td", "", forecast), element("td", "", real));
      return row;
    }),
  );
};

const work = (view) => {
  const box = $("#forecast .work");
  box.hidden = !view;
  setText($("#forecast h2"), view ? words.THIS_QUESTION : words.NEXT_QUESTION);
  if (!view) return;
  $(".track", box).hidden = view.percent === null;
  $(".track i", box).style.width = `${view.percent ?? 0}%`;
  setText($(".text", box), view.text);
  const left = view.left === null ? "" : words.leftUntil(duration(view.left), clockIn(view.left));
  setText($(".speed", box), [view.speed, left].filter(Boolean).join(" · "));
};

export const start = () => {
  on("forecast", paint);
  on("work", work);
};
