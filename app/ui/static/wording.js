/* What the page's scripts say. Sentences with figures from the engine come from app/wording.py;
   fixed markup and its labels are in app/ui/panels. */
export const MODEL_FAILED = "could not be loaded; choose another";
export const PAUSE = "Pause";
export const RESUME = "Resume";
export const PAUSING = "Pausing after the current step …";
export const PAUSED = "Paused. Everything read so far is kept.";
export const READING = "Reading";
export const ANSWERING = "Answering";
export const DONE = "Done";
export const COPIED = "Copied";
export const NOT_THERE = "This document is no longer here. Drop it again to look inside.";
export const OFFLINE =
  "mom-chat is not responding. Is it still running? This page reconnects automatically.";
export const NO_ANSWER = "mom-chat is not responding. Is it still running?";
export const refused = (status) => `The request was refused (${status}).`;
export const STARTERS = [
  "Summarise the most important points.",
  "Which names, dates and numbers matter most?",
  "What is surprising here? Quote the passages.",
];
export const until = (time, place) => `, done at about ${time}${place ? `; now at ${place}` : ""}`;
export const editing = (number) =>
  `Editing question ${number}. The new answer replaces everything after it; Esc cancels.`;
export const rename = (name) => `Rename ${name}`;
export const remove = (name) => `Delete ${name}`;
export const exported = (name) => `Save ${name} as Markdown`;
export const confirmDelete = (name) => `Delete “${name}” and all its answers?`;
export const fits = (model) => {
  const [read, window] = [model.fits_tokens, model.window_tokens].map((n) =>
    n.toLocaleString("en"),
  );
  if (!model.fits_tokens) return "does not fit on this machine";
  const share = model.fits_tokens < model.window_tokens ? `${read} of its` : "all of its";
  return `can read ${share} ${window} tokens here`;
};
export const WEIGHING = "Checking which models fit on this machine …";
export const USE = "Use";

// The timeline.
export const GPU = "On the GPU";
export const MODEL = "Memory used by the model";
export const MACHINE = "In this machine's memory";
export const beside = (kinds) =>
  `also in use: ${kinds.map(([name, size]) => `${name.toLowerCase()} ${size}`).join(", ")}`;
export const DISK = "Disk";
export const KINDS = {
  weights: "Weights",
  kv: "KV",
  hidden: "Hidden states",
  activations: "Activations",
  rest: "This program",
  others: "Other programs",
};
export const ALL = "Total";
export const CLOSE = "Close";
export const ENLARGE = "Enlarge";
export const layer = (number) => `Reading layer ${number}`;
export const ALL_LAYERS = "Reading all layers";
export const layers = (number) => `Reading ${number} ${number === 1 ? "layer" : "layers"}`;
export const THIS_QUESTION = "This question";
export const NEXT_QUESTION = "Next question";
export const leftUntil = (left, clock) => `${left} left, done at ${clock}`;
export const peak = (size) => `peak ${size}`;
export const standard = (size) => `plain transformers ${size}`;
export const limit = (size) => `limit ${size}`;
export const room = (size) => `room ${size}`;
export const timeline = (title, peakSize, standardSize, limitSize, time) => {
  const standard = standardSize ? ` Plain transformers would have needed ${standardSize}.` : "";
  return `${title} over ${time}: peak ${peakSize} of ${limitSize}.${standard}`;
};

// The token map and the viewer.
export const WAITING = "not read yet";
export const READ = "read";
export const WITHOUT_TEXT = "without text";
export const LEFT_OUT = "left out";
export const mapOf = (name) => `Parts of ${name}. Arrow keys move, Enter opens.`;
export const LEAVE_OUT = "Leave this part out";
export const PUT_IN = "Put this part back";
export const NO_TEXT = "This part has no text, so the model sees nothing of it.";
export const READ_ANEW = "Rereading the document …";

// Uploads.
export const UPLOADING = "Uploading …";
export const uploaded = (percent) => `Uploading: ${percent} %`;
export const UPLOAD_BROKEN = "The upload was interrupted. Is mom-chat still running?";
export const unreadable = (path) => `${path} could not be read from the disk.`;
export const emptyFolder = (name) => `${name} is an empty folder: there is nothing to read in it.`;
export const pasted = (number) => `Pasted text ${number}.txt`;

// Documents.
const COUNTS = new Intl.NumberFormat("en");
export const tokens = (number) => `${COUNTS.format(number)} ${number === 1 ? "token" : "tokens"}`;
export const share = (percent) =>
  percent === 0
    ? "0 %"
    : percent < 0.1
      ? "< 0.1 %"
      : percent < 10
        ? `${percent.toFixed(1)} %`
        : `${Math.round(percent)} %`;
export const PASSWORD = "Password, then Enter";
export const READ_ALL_THE_SAME = "Read it anyway";
export const EXTRACTOR = "How to extract the text";
export const EXTRACTORS = [
  ["pdfium", "Extract with PDFium"],
  ["pypdf", "Extract with pypdf"],
  ["ocr", "Use OCR where there is no text"],
];
export const HOW_READ = "Reading options";
export const RECEIPT = "Reading receipt";
export const NOT_READ = "Left out:";
export const PUT_BACK = "Put back";
export const RUNNING_LINES = "Leave out repeated headers and footers";
export const HYPHENS = "Rejoin words hyphenated at line ends";
export const INCLUDE = "Only these files: *.py, docs/**";
export const EXCLUDE = "Not these files: tests/**, *.csv";
export const putBack = (path) => `Put ${path} back`;
export const showMore = (number) => `Show ${COUNTS.format(number)} more`;
export const move = (name, where) => `Move ${name} ${where}`;
export const found = (number, shown) =>
  number === 0
    ? "Nothing found"
    : number > shown
      ? `${COUNTS.format(number)} found; the first ${shown}:`
      : `${COUNTS.format(number)} found:`;
export const keep = (unit) => `Keep ${unit}s: 1-40, 88`;
export const METER = {
  documents: "Documents",
  conversation: "Conversation",
  answer: "Room for the answer",
};
export const meter = (used, level) =>
  `${Math.round(used)} % of the context${level === "full" ? ", nearly full" : ""}`;

// The library.
export const FORGET = "Forget";
export const forget = (name) => `Forget ${name} and delete its saved data`;
