// One unit of a layer: its kernel, in the first layer, and the patches of a dataset that excite it most.

import { address, ask } from "./api.js";
import { command, distance, h, whole } from "./dom.js";

const KERNEL = "Its kernel: the weights for red, green and blue; middle grey is 0";
const NO_FOLDER = "The strongest patches are kept in a model’s folder, and this ONNX file is in none.";

// The content of the panel, its pictures loaded. `network`: model, generation.
export async function aboutUnit(layer, unit, { network, context, workspace }, signal) {
  const parameters = { index: context.index, layer: layer.name, unit, generation: network.generation };
  const told = await ask("/api/unit", parameters, { signal });
  const column = Math.floor((unit * layer.columns) / layer.kernels);
  const content = [
    h("h2", {}, `${layer.name}, unit ${unit}`),
    h("p", { class: "fine" }, facts(layer, layer.columns > 1 ? `In column ${column}. ` : "")),
    h(
      "div",
      { class: "figures" },
      told.kernel && figure("kernel", address("/api/kernel", parameters), KERNEL),
      told.patches?.responses.length > 0 && strongest(told.patches, address("/api/patches", parameters)),
    ),
    ...withoutPatches(told, layer, network, workspace),
  ];
  const pictures = content.flatMap((one) => [...one.querySelectorAll("img")]);
  await Promise.allSettled(pictures.map((picture) => picture.decode())); // so that the panel has its height
  return content;
}

// In words: how large a kernel is, and how much of the picture a unit sees.
function facts(layer, before) {
  const inputs = whole(layer.connections / layer.neurons);
  return `${before}A unit has ${inputs} inputs and sees ${layer.field.size} × ${layer.field.size} pixels; its neighbour’s begin ${layer.field.stride} further on.`;
}

function strongest({ dataset, split, responses }, src) {
  const [most, least] = [responses[0], responses.at(-1)].map(distance);
  return figure("patches", src, `What excites it most in ${dataset} (${split}), from ${most} to ${least}`);
}

// Why there are none, and what to type.
function withoutPatches({ why, patches }, layer, network, workspace) {
  const say = (text) => h("p", { class: "fine" }, text);
  if (why) return [say(`Its strongest patches cannot be shown: ${why}.`)];
  if (patches) return patches.responses.length ? [] : [say(`No picture of ${patches.dataset} excites it.`)];
  if (network.model === null) return [say(NO_FOLDER)];
  const line = `alexnet visualize units --layer ${layer.name} --model ${network.model} --workspace ${workspace}`;
  return [say("To see the nine patches of a dataset that excite it most, search for them once:"), command(line)];
}

function figure(kind, src, caption) {
  const failed = (event) => event.target.replaceWith(h("span", { class: "missing" }, "it cannot be shown"));
  return h("figure", { class: kind }, h("img", { src, alt: "", onerror: failed }), h("figcaption", { class: "fine" }, caption));
}
