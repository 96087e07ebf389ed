// What the kernels of a layer see in the picture.

import { ask, askPicture } from "./api.js";
import { count, h } from "./dom.js";

// Nothing is asked until it is opened.
export function layers(query, context) {
  const [image, large] = [h("img", { alt: "" }), h("img", { alt: "" })];
  const enlarge = h("button", { type: "button", class: "enlarge", hidden: true, onclick: () => dialog.showModal() }, image);
  const caption = h("figcaption");
  const close = h("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const dialog = h("dialog", { class: "large" }, h("figure", {}, large, caption), close);
  const said = h("p", { class: "fine", "aria-live": "polite" }, "Loading …");
  const chooser = h("select", { "aria-label": "Layer", hidden: true, onchange: () => draw(chooser.value) });
  let isFilled = false;

  async function fill() {
    if (!details.open || isFilled) return;
    isFilled = true;
    try {
      const found = await ask("/api/layers", { index: context.index });
      if (!found.layers.length) {
        said.textContent = "The file of this model does not name its layers.";
        return;
      }
      chooser.append(...found.layers.map((name) => h("option", {}, name)));
      await draw(found.layers[0]);
      chooser.hidden = false;
    } catch (error) {
      said.textContent = error.message;
    }
  }

  async function draw(layer) {
    const parameters = { index: context.index, layer, row: query.row, generation: query.upload ? null : context.generation };
    const options = query.upload ? { method: "POST", body: query.upload.file } : {};
    try {
      const { picture, headers } = await askPicture("/api/maps", parameters, options);
      URL.revokeObjectURL(image.src);
      image.src = large.src = URL.createObjectURL(picture);
      large.alt = `The maps of ${layer}`;
      enlarge.ariaLabel = `Enlarge the maps of ${layer}`;
      enlarge.hidden = false;
      const [kernels, height, width] = headers.get("X-Maps").split(" ").map(Number);
      caption.textContent = `${layer}: ${count(kernels, "map")} of ${width} × ${height}`;
      said.textContent = `Each square is a kernel of ${layer}: white where the picture excites it. Click to enlarge.`;
    } catch (error) {
      said.textContent = error.message;
    }
  }

  const details = h("details", { class: "layers", ontoggle: fill }, h("summary", {}, "What its layers see"), chooser, enlarge, said, dialog);
  return details;
}
