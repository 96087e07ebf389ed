// The central view of a picture, which is what the network sees of it, and over it where a map responds.

import { askPicture, thumbnail } from "./api.js";
import { h } from "./dom.js";

const [NONE, MOST] = [[14, 12, 30, 178], [255, 170, 20, 96]]; // red, green, blue and cover where a map is 0 and strongest

// An element with the methods `show(map, field)` and `clear()`. `network`: image_size, crop.
export function seen(query, network, context, signal) {
  const image = h("img", { alt: "What the network sees of the picture: its central view", onerror: () => missing("it cannot be shown") });
  const response = h("canvas", { class: "response", hidden: true, "aria-hidden": "true" });
  const frame = h("span", { class: "field", hidden: true });
  const view = h("div", { class: "view" }, image, response, frame);
  const missing = (text) => image.replaceWith(h("span", { class: "missing" }, text));
  const { crop } = network;
  const margin = Math.floor((network.image_size - crop) / 2);
  place(image, -margin, -margin, network.image_size, network.image_size, crop);
  source(query, context, signal).then((url) => (image.src = url), (error) => error.name === "AbortError" || missing("it cannot be shown"));

  view.show = (map, field) => {
    const { width, height } = map.pixels;
    Object.assign(response, { width, height, hidden: false });
    response.getContext("2d").putImageData(coloured(map), 0, 0);
    const first = field.start + (field.size - field.stride) / 2; // a unit is drawn in the middle of its field
    place(response, first, first, field.stride * width, field.stride * height, crop);
    const [top, left] = [field.start + field.stride * map.row, field.start + field.stride * map.column];
    const [up, before] = [Math.max(0, top), Math.max(0, left)];
    place(frame, before, up, Math.min(crop, left + field.size) - before, Math.min(crop, top + field.size) - up, crop);
    frame.hidden = map.value <= 0;
  };
  view.clear = () => (response.hidden = frame.hidden = true);
  return view;
}

// The central square of the picture as a JPEG of the server's, which reads all formats as the network does.
async function source(query, context, signal) {
  const { upload } = query;
  if (!upload) return thumbnail(query.row, { index: context.index, generation: query.generation });
  if (!upload.square) {
    const { picture } = await askPicture("/api/preview", {}, { method: "POST", body: upload.file, signal });
    upload.square = URL.createObjectURL(picture);
  }
  return upload.square;
}

// Pixels of the view, as parts of it.
function place(element, left, top, width, height, crop) {
  for (const [name, value] of Object.entries({ left, top, width, height })) element.style.setProperty(name, `${(100 * value) / crop}%`);
}

// Each map by its own strongest place.
function coloured(map) {
  const { zero, pixels } = map;
  const { data, width, height } = pixels;
  const most = data.reduce((largest, value, i) => (i % 4 ? largest : Math.max(largest, value)), zero + 1);
  const shown = new ImageData(width, height);
  for (let i = 0; i < data.length; i += 4) {
    const part = Math.max(0, data[i] - zero) / (most - zero); // what is negative counts as 0
    for (let j = 0; j < 4; j += 1) shown.data[i + j] = NONE[j] + part * (MOST[j] - NONE[j]);
  }
  return shown;
}
