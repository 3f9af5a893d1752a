/* The parts of each document, fetched once per revision and shared by tree, map and viewer. Part
   numbers start at 0. */
import { emit, on, send } from "./core.js";

const known = new Map();

// Running totals: element n is the sum of the first n numbers.
const sums = (numbers) => {
  const all = new Float64Array(numbers.length + 1);
  numbers.forEach((number, n) => {
    all[n + 1] = all[n] + number;
  });
  return all;
};

// Labels, tokens, chapters, empty and doubts as the server sends them; `sums[n]` is the number of
// tokens before part n.
const fetchParts = async (row) => {
  const parts = await send("GET", `./documents/${row.id}/parts`);
  if (!parts) return null;
  parts.sums = sums(parts.tokens);
  parts.empty = new Set(parts.empty);
  parts.id = row.id;
  parts.name = row.name;
  return parts;
};
export const ticksOf = (runs, total) => {
  const ticks = new Uint8Array(total);
  let at = 0;
  runs.forEach((length, n) => {
    if (n % 2 === 0) ticks.fill(1, at, at + length);
    at += length;
  });
  return ticks;
};
const runsOf = (ticks) => {
  const runs = [];
  let is = 1,
    length = 0;
  for (const one of ticks) {
    if (one === is) length += 1;
    else {
      runs.push(length);
      is = one;
      length = 1;
    }
  }
  return [...runs, length];
};

export const all = () => [...known.values()].filter((one) => one.parts);
export const find = (id) => (known.get(id)?.parts ? known.get(id) : null);

const update = async (rows) => {
  for (const id of known.keys())
    if (!rows.some((row) => row.id === id)) {
      known.delete(id);
      emit("parts", null);
    }
  await Promise.all(
    rows.map(async (row) => {
      const one = known.get(row.id) ?? { revision: -1, choice: -1, parts: null, ticks: null };
      known.set(row.id, one);
      const isCounted = row.has_parts;
      if (!isCounted || (one.revision === row.revision && one.choice === row.choice)) return;
      const isOther = one.revision !== row.revision;
      Object.assign(one, { revision: row.revision, choice: row.choice });
      const [parts, runs] = await Promise.all([
        isOther ? fetchParts(row) : one.parts,
        send("GET", `./documents/${row.id}/choice`),
      ]);
      if (!parts || !runs || known.get(row.id) !== one) return;
      const ticks = ticksOf(runs, parts.labels.length);
      Object.assign(one, { parts, ticks, ticked: sums(ticks) });
      emit("parts", row.id);
    }),
  );
  order = rows.map((row) => row.id);
};
let order = [];
export const inOrder = () => order.map(find).filter(Boolean);

/* Ticks (or unticks) the parts with these numbers. */
export const tick = async (id, numbers, is) => {
  const one = find(id);
  if (!one) return;
  const ticks = one.ticks.slice();
  for (const n of numbers) ticks[n] = is ? 1 : 0;
  await send("PUT", `./documents/${id}/choice`, { runs: runsOf(ticks) });
};

let last = "";
export const start = () =>
  on("state", ({ documents }) => {
    const key = documents.rows
      .map((row) => `${row.id} ${row.revision} ${row.choice} ${row.has_parts}`)
      .join();
    if (key === last) return;
    last = key;
    update(documents.rows).then(() => emit("parts", null));
  });
