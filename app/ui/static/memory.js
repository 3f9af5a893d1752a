/* The gauges: what device and host hold now, by kind, and their peaks. */
import { $, on, setText } from "./core.js";

const paint = (memory) => {
  for (const key of ["device", "host"]) {
    const box = $(`#gauge-${key} .gauge`); if (!box) continue;
    const gauge = memory[key], bar = box.querySelector(".bar");
    setText(box.querySelector(".title"), gauge.title);
    setText(box.querySelector(".text"), gauge.text);
    let left = 0;
    for (const [kind, percent, size] of gauge.parts) {
      const part = bar.querySelector(`.${kind}`);
      part.style.left = left + "%"; part.style.width = percent + "%"; left += percent;
      const row = box.querySelector(`.kinds .${kind}`);
      row.hidden = false; setText(row.querySelector("b"), size);
    }
    bar.querySelector("u").style.left = Math.min(99.5, gauge.peak) + "%";
    bar.setAttribute("aria-valuenow", Math.round(left)); bar.setAttribute("aria-valuetext", gauge.text);
  }
};

export const start = () => on("memory", paint);
