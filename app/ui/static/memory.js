/* The gauges: memory in use on GPU and machine, by kind, with peaks and totals. */
import { $, on, placePart, setText } from "./core.js";

const paint = (memory) => {
  for (const key of ["device", "host"]) {
    const block = $(`#gauge-${key}`),
      gauge = memory[key];
    // Without a GPU the model runs in this machine's memory, and one gauge is enough.
    block.classList.toggle("absent", !gauge);
    if (!gauge) continue;
    const box = $(".gauge", block),
      bar = $(".bar", box);
    setText($(".title", box), gauge.title);
    const [now, peak, total] = box.querySelectorAll(".now dd");
    setText(now, gauge.now);
    setText(peak, gauge.peak_text);
    setText(total, gauge.total);
    let left = 0;
    for (const [kind, percent, size] of gauge.parts) {
      const part = $(`.${kind}`, bar);
      placePart(part, left, percent);
      left += percent;
      const row = $(`.kinds .${kind}`, box);
      row.hidden = false;
      setText($("b", row), size);
    }
    $("u", bar).style.left = `${Math.min(99.5, gauge.peak)}%`;
    bar.setAttribute("aria-valuenow", Math.round(left));
    bar.setAttribute("aria-valuetext", `${gauge.now} of ${gauge.total}, peak ${gauge.peak_text}`);
    setText($(".disk", box), gauge.disk ?? "");
  }
};

export const start = () => on("memory", paint);
