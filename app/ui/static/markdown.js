/* The running answer as Markdown, added to and never drawn anew, so that its end costs no more than
   its beginning. Only text nodes and elements of the library's own are made: no HTML of the model's,
   no picture, and links that do not leave the page by themselves. */
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
    // A remote picture would tell its server of the question.
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
