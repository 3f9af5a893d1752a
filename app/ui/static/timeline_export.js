/* Exports the timeline: its readings as CSV, its charts as a PNG. */
import { $, element, sum } from "./core.js";
import { KINDS, LEFT, NS } from "./chart.js";
import * as words from "./wording.js";

export const download = (name, blob) => {
  const link = element("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
};
/* One row per reading; `marks` are notes with their time. */
export const csv = (points, marks) => {
  const ofDevice = KINDS.filter((kind) => kind !== "others");
  const head = [
    "seconds",
    "phase",
    "layer",
    ...ofDevice.map((kind) => `device_${kind}_mib`),
    ...KINDS.map((kind) => `host_${kind}_mib`),
    "disk_mib",
    "event",
  ];
  const noted = (at, next) =>
    marks
      .filter(([time]) => time > at && time <= next)
      .map(([, text]) => text)
      .join("; ");
  const rows = points.map(([at, phase, layer, device, host, disk], n) => [
    at,
    phase,
    layer,
    ...ofDevice.map((_, k) => device[k] ?? ""),
    ...host,
    disk,
    `"${noted(n ? points[n - 1][0] : -1, at)}"`,
  ]);
  return `${[head, ...rows].map((row) => row.join(",")).join("\n")}\n`;
};
/* The charts as shown, with a legend of the kinds that are drawn. */
export const png = async (charts, kinds) => {
  const scale = 2,
    gap = 26,
    width = charts[0].root.clientWidth,
    heights = charts.map((one) => one.root.clientHeight + gap),
    legend = 24;
  const canvas = element("canvas"),
    context = canvas.getContext("2d");
  canvas.width = scale * width;
  canvas.height = scale * (sum(heights) + legend);
  context.scale(scale, scale);
  const style = getComputedStyle($("#timeline .card"));
  context.fillStyle = style.backgroundColor;
  context.fillRect(0, 0, width, canvas.height);
  let top = 0;
  for (const [n, one] of charts.entries()) {
    const copy = one.root.cloneNode(true),
      nodes = copy.querySelectorAll("*");
    // A picture has no style sheet, so the computed styles are copied into it.
    one.root.querySelectorAll("*").forEach((node, i) => {
      const seen = getComputedStyle(node);
      for (const name of [
        "fill",
        "stroke",
        "stroke-width",
        "stroke-dasharray",
        "opacity",
        "font-size",
        "font-family",
      ])
        if (!(name === "fill" && node.classList.contains("texture")))
          nodes[i].style.setProperty(name, seen.getPropertyValue(name));
    });
    copy.setAttribute("width", width);
    copy.setAttribute("height", heights[n] - gap);
    copy.setAttribute("xmlns", NS);
    const image = new Image();
    const text = encodeURIComponent(new XMLSerializer().serializeToString(copy));
    image.src = `data:image/svg+xml;charset=utf-8,${text}`;
    await image.decode();
    context.fillStyle = style.color;
    context.font = "600 12px system-ui, sans-serif";
    context.fillText($("b", one.caption).textContent, LEFT, top + 17);
    context.drawImage(image, 0, top + gap);
    top += heights[n];
  }
  let left = LEFT;
  context.font = "11px system-ui, sans-serif";
  for (const kind of kinds) {
    context.fillStyle = getComputedStyle($(`#timeline .legend .${kind} i`)).backgroundColor;
    context.fillRect(left, top + 8, 9, 9);
    context.fillStyle = style.color;
    context.fillText(words.KINDS[kind], left + 13, top + 16);
    left += 30 + context.measureText(words.KINDS[kind]).width;
  }
  canvas.toBlob((blob) => download("memory.png", blob), "image/png");
};
