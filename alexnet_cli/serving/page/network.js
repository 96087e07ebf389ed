// The network: its columns as a drawing, and below it what a layer shows for the current picture.

import { address, ask } from "./api.js";
import { columns } from "./columns.js";
import { command, count, h, notice, whole } from "./dom.js";
import { Inside } from "./inside.js";
import { offer } from "./search.js";

// `query`: as in the search, null if there is no picture yet. `keep` is told the layer and the unit that are looked at.
export async function showNetwork(main, query, context, tools) {
  const { parameters, workspace, keep, signal } = tools;
  main.replaceChildren(h("p", { class: "loading waiting" }, "Loading …"));
  const network = await ask("/api/layers", { index: context.index }, { signal });
  if (!network.layers.length) return main.replaceChildren(undescribed(network, workspace));

  const find = (name) => network.layers.find((layer) => layer.name === name);
  const inside = new Inside(query, network, context, tools);
  const show = (layer, unit = null) => {
    drawing.select(layer.name);
    keep(layer.name, unit);
    return inside.show(layer, unit);
  };
  const drawing = columns(network.layers, network.crop, (name) => show(find(name)));
  main.replaceChildren(
    h(
      "section",
      { class: "network" },
      h(
        "header",
        { class: "bar" },
        h("div", {}, h("h1", {}, `The network ${context.model}`), h("p", { class: "summary" }, summary(network))),
        query && ways(query, context, tools),
      ),
      h("div", { class: "drawn" }, drawing),
      inside.element,
    ),
  );
  const layer = find(parameters.get("layer")) ?? find(network.maps[0]) ?? network.layers[0];
  const unit = parameters.get("unit") ?? "";
  await show(layer, /^\d{1,6}$/.test(unit) && Number(unit) < layer.kernels ? Number(unit) : null);
  if (!query) await offer(main, context, tools, { title: "What does it see in your picture?", view: "network" });
}

// From the picture to others.
function ways({ upload, row, generation }, context, { choose }) {
  const href = address("/", { index: context.index, ...(upload ? { picture: upload.number } : { row, generation }) });
  const another = h("button", { type: "button", onclick: choose }, "Another picture");
  return h("p", { class: "ways" }, h("a", { href }, "Its nearest pictures"), another);
}

function undescribed(network, workspace) {
  return notice(
    "The file of this model does not describe its layers",
    network.model === null
      ? h("p", {}, "Export it again, from the model's folder.")
      : [h("p", {}, "Export it again:"), command(`alexnet export ${network.model} --workspace ${workspace}`)],
  );
}

function summary({ layers, crop }) {
  const most = Math.max(...layers.map((layer) => layer.columns));
  const parameters = layers.reduce((sum, layer) => sum + layer.weights + layer.biases, 0);
  const size = `${count(layers.length, "layer")} in ${most === 1 ? "one column" : `${most} columns`}, ${count(parameters, "parameter")}`;
  return `${size}. It sees the central ${whole(crop)} × ${whole(crop)} pixels. Click a layer.`;
}
