/* Every word that the page's scripts say, in one place. Those that depend on figures of the engine
   come from app/ui/wording.py. */
export const MODEL_FAILED = "could not be loaded: choose another";
export const PAUSE = "Pause";
export const RESUME = "Go on";
export const PAUSING = "Pausing as soon as the step under way is done …";
export const PAUSED = "Paused. What was read so far is held.";
export const READING = "Reading";
export const ANSWERING = "Answering";
export const DONE = "Done";
export const COPIED = "Copied";
export const NOT_THERE = "This document is not here any more. Drop it again to look there.";
export const OFFLINE = "The program does not answer. Is it still running? This page reconnects by itself.";
export const STARTERS = [
  "Summarise the most important points.",
  "Which names, dates and numbers matter most?",
  "What is surprising in it? Quote the passages.",
];
export const until = (time, place) => `, until about ${time}${place ? `; now at ${place}` : ""}`;
export const editing = (number) => `Editing question ${number}: what came after it is answered anew. Esc leaves it as it was.`;
export const rename = (name) => `Rename ${name}`;
export const remove = (name) => `Delete ${name}`;
export const exported = (name) => `Save ${name} as Markdown`;
export const confirmDelete = (name) => `Delete “${name}” and all its answers?`;
export const fits = (model) => !model.fits_tokens ? "does not fit this machine"
  : model.fits_tokens < model.window_tokens ? `reads ${model.fits_tokens.toLocaleString("en")} of its ${model.window_tokens.toLocaleString("en")} tokens here`
  : `reads all of its ${model.window_tokens.toLocaleString("en")} tokens here`;
export const WEIGHING = "Weighing the models for this machine …";
export const USE = "Use";

// The timeline.
export const GPU = "GPU";
export const MACHINE = "Memory of this machine";
export const DISK = "Disk";
export const KINDS = { weights: "Weights", kv: "KV", hidden: "Hidden states", activations: "Activations", rest: "This program", others: "Other programs" };
export const ALL = "Together";
export const CLOSE = "Close";
export const ENLARGE = "Enlarge";
export const layer = (number) => `Reading layer ${number}`;
export const layers = (number) => `Reading ${number} ${number === 1 ? "layer" : "layers"}`;
export const THIS_QUESTION = "This question";
export const NEXT_QUESTION = "Next question";
export const leftUntil = (left, clock) => `${left} left, until ${clock}`;
export const shown = (name, isShown) => `${name}: ${isShown ? "drawn" : "not drawn"}`;
export const peak = (size) => `peak ${size}`;
export const standard = (size) => `plain transformers ${size}`;
export const limit = (size) => `limit ${size}`;
export const room = (size) => `room ${size}`;
export const timeline = (title, peakSize, standardSize, limitSize, time) =>
  `${title} over ${time}: peak ${peakSize} of ${limitSize}.${standardSize ? ` Plain transformers would have needed ${standardSize}.` : ""}`;

// The token map and the viewer.
export const WAITING = "not read yet";
export const READ = "read";
export const WITHOUT_TEXT = "without text";
export const LEFT_OUT = "left out";
export const mapOf = (name) => `Parts of ${name}: arrow keys move, Enter opens`;
export const LEAVE_OUT = "Leave this part out";
export const PUT_IN = "Put this part in";
export const NO_TEXT = "This part has no text: the model sees nothing of it.";
export const READ_ANEW = "Reading the document anew …";
