// What the kernels of a layer see in the picture.

import { ask, askPicture } from "./api.js";
import { h } from "./dom.js";

// Nothing is asked until it is opened.
export function layers(query, context) {
  const image = h("img", { alt: "", hidden: true });
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
      const picture = await askPicture("/api/maps", parameters, options);
      URL.revokeObjectURL(image.src);
      image.src = URL.createObjectURL(picture);
      image.alt = `The maps of ${layer}`;
      image.hidden = false;
      said.textContent = `Each square is a kernel of ${layer}: white where the picture excites it.`;
    } catch (error) {
      said.textContent = error.message;
    }
  }

  const details = h("details", { class: "layers", ontoggle: fill }, h("summary", {}, "What its layers see"), chooser, image, said);
  return details;
}
