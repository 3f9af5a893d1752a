/* Renders the running answer as Markdown. It only appends and never redraws, so the end of an answer
   costs no more than its start. It creates text nodes and the library's own elements: no HTML from
   the model, no pictures, and no link that can be followed. */
import * as smd from "./smd.min.js";
import { element } from "./core.js";

export const liveMarkdown = (place) => {
  const renderer = smd.default_renderer(place),
    { add_token: addToken, set_attr: setAttribute } = renderer;
  renderer.add_token = (data, type) => {
    if (type !== smd.IMAGE) {
      addToken(data, type);
      return;
    }
    // Loading a remote picture would reveal the question to its server.
    const picture = element("span", "picture");
    data.nodes[++data.index] = data.nodes[data.index - 1].appendChild(picture);
  };
  renderer.set_attr = (data, type, value) => {
    if (type === smd.SRC) return;
    if (type === smd.HREF) {
      const node = data.nodes[data.index];
      node.title = value;
      return;
    }
    setAttribute(data, type, value);
  };
  const parser = smd.parser(renderer);
  return { write: (text) => smd.parser_write(parser, text) };
};
