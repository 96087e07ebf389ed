// The maps of a layer for a picture: cut from the one picture that the server draws of them.

import { askPicture } from "./api.js";
import { h } from "./dom.js";
import { stepped } from "./wall.js";

// A list of {unit, canvas, pixels, zero, value, row, column}: a map, the grey of 0 on it, and its strongest place.
export async function askMaps(query, layer, context, signal) {
  const parameters = { index: context.index, layer, row: query.row, generation: query.upload ? null : query.generation };
  const options = query.upload ? { method: "POST", body: query.upload.file, signal } : { signal };
  const { picture, headers } = await askPicture("/api/maps", parameters, options);
  const numbers = (name) => headers.get(name).split(" ").map(Number);
  const [kernels, height, width] = numbers("X-Maps");
  const [across, times, gap] = numbers("X-Sheet");
  const [zero] = numbers("X-Zero");
  const strongest = headers.get("X-Strongest").split(",").map((place) => place.split(" ").map(Number));
  const sheet = await createImageBitmap(picture);
  return Array.from({ length: kernels }, (_, unit) => {
    const canvas = h("canvas", { width, height });
    const context2d = canvas.getContext("2d", { willReadFrequently: true });
    context2d.imageSmoothingEnabled = false;
    const [left, top] = [(unit % across) * (width * times + gap), Math.floor(unit / across) * (height * times + gap)];
    context2d.drawImage(sheet, left, top, width * times, height * times, 0, 0, width, height);
    const [value, row, column] = strongest[unit];
    return { unit, canvas, pixels: context2d.getImageData(0, 0, width, height), zero, value, row, column };
  });
}

// The maps of one column. `look` is told the map under the pointer or in the focus, null if there is none; `choose` the
// one that is clicked.
export function mapGrid(label, maps, layer, { look, choose }) {
  const buttons = maps.map((map) => {
    const title = `${layer.name}, map ${map.unit}`;
    const told = { title, "aria-label": title, "aria-pressed": "false", "data-unit": map.unit };
    const events = { onclick: () => choose(map), onfocus: () => look(map), onpointerenter: () => look(map) };
    return h("button", { type: "button", class: "map", tabindex: -1, ...told, ...events }, map.canvas);
  });
  if (buttons.length) buttons[0].tabIndex = 0;
  return h(
    "ul",
    {
      class: "maps",
      "aria-label": label,
      onkeydown: (event) => stepped(event, buttons)?.focus(),
      onfocusin: (event) => buttons.forEach((one) => (one.tabIndex = one === event.target ? 0 : -1)),
      onfocusout: () => look(null),
      onpointerleave: () => look(null),
    },
    buttons.map((button) => h("li", {}, button)),
  );
}
