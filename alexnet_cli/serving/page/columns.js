// The network as the paper's figure 2 draws it: a block for each layer of each column, as tall as its maps and as thick
// as it has many, the kernel that looks at it, and arrows, which cross where a layer takes its input from all columns.

import { s, whole } from "./dom.js";

const [SLOT, ROW, HEAD] = [124, 112, 40]; // the width of a layer, the height of a column, and of the names above them
const [TALLEST, LONGEST, THICKEST, INPUT] = [60, 96, 30, 118]; // of maps, dense layers, many maps, and the picture
const [ASIDE, UP] = [0.34, 0.24]; // how far the back of a block is shifted, in its heights
const LINE = 13; // from one line of text to the next

// `choose` is called with a layer's name. The drawing has the method `select`, which takes one.
export function columns(layers, crop, choose) {
  const count = Math.max(...layers.map((layer) => layer.columns));
  const measure = measures(layers, crop, count);
  const height = Math.max(count * ROW, measure.input + (count > 1 ? 0 : 44));
  const middle = HEAD + height / 2;
  const level = (column, of) => (of === 1 ? middle : middle + (column - (of - 1) / 2) * ROW);
  const steps = [
    [block(0, middle, 8, measure.input, "no-column")],
    ...layers.map((layer, i) =>
      Array.from({ length: layer.columns }, (_, column) => shape(layer, column, SLOT * (i + 1), level(column, layer.columns), measure)),
    ),
  ];
  const lines = Math.max(...layers.map((layer) => words(layer).length));
  const bottom = HEAD + height + 22;
  const [width, end] = [SLOT * (layers.length + 1), bottom + LINE * lines];
  const groups = layers.map((layer, i) => group(layer, i, steps[i + 1], bottom, end, () => choose(layer.name)));
  const drawing = s(
    "svg",
    {
      class: "columns",
      viewBox: `0 0 ${width} ${end + 6}`,
      role: "tablist",
      "aria-label": "Layers of the network",
      onkeydown: (event) => move(event, groups),
    },
    s("defs", {}, tip()),
    s(
      "g",
      { "aria-hidden": "true" },
      steps[0][0].faces,
      text(SLOT / 2, 18, "picture", "title"),
      text(SLOT / 2, bottom, `${crop} × ${crop}`),
      text(SLOT / 2, bottom + LINE, "pixels"),
    ),
    groups,
    s(
      "g",
      { class: "arrows", "aria-hidden": "true" },
      layers.map((layer, i) => arrows(layer, i && layers[i - 1], steps[i], steps[i + 1], crop)),
    ),
  );
  drawing.style.setProperty("--slots", layers.length + 1);
  drawing.select = (name) => {
    for (const [i, { name: own }] of layers.entries()) {
      groups[i].setAttribute("aria-selected", String(own === name));
      groups[i].setAttribute("tabindex", own === name ? 0 : -1);
    }
    const [strip, chosen] = [drawing.parentElement, groups[layers.findIndex((layer) => layer.name === name)]];
    const [within, without] = [chosen.getBoundingClientRect(), strip.getBoundingClientRect()];
    if (within.right > without.right || within.left < without.left) strip.scrollLeft += within.left - without.left - without.width / 3;
  };
  return drawing;
}

// Of an arrow.
function tip() {
  const place = { viewBox: "0 0 6 6", refX: 5.5, refY: 3, markerWidth: 7, markerHeight: 7, orient: "auto" };
  return s("marker", { id: "tip", ...place }, s("path", { d: "M0 0L6 3L0 6z" }));
}

// Sizes on the page: roots, since the paper's maps have from 224 × 224 to 13 × 13 positions.
function measures(layers, crop, columns) {
  const largest = (numbers) => Math.max(1, ...numbers);
  const maps = layers.filter((layer) => layer.output.length === 3);
  const dense = layers.filter((layer) => layer.output.length === 1);
  const side = largest(maps.map((layer) => layer.output[1]));
  const many = largest(maps.map((layer) => layer.output[0] / layer.columns));
  const units = largest(dense.map((layer) => layer.output[0] / layer.columns));
  return {
    columns,
    input: Math.min(INPUT, TALLEST * Math.sqrt(crop / side)),
    tall: (pixels) => Math.max(7, TALLEST * Math.sqrt(pixels / side)),
    thick: (number) => Math.max(4, THICKEST * Math.sqrt(number / many)),
    long: (number) => Math.max(14, LONGEST * Math.sqrt(number / units)),
  };
}

// What stands for a layer in one column: its faces, where arrows enter and leave, and a point of its maps.
function shape(layer, column, left, level, measure) {
  const number = layer.output[0] / layer.columns;
  const tint = layer.columns === 1 && measure.columns > 1 ? "no-column" : `column-${column % 4}`;
  const made =
    layer.output.length === 3
      ? block(left, level, measure.thick(number), measure.tall(layer.output[1]), tint)
      : bar(left, level, measure.long(number), tint);
  const said = layer.output.length === 3 ? `${whole(number)} × ${layer.output[1]} × ${layer.output[2]}` : whole(number);
  const isAbove = layer.columns > 1 && column < layer.columns / 2;
  const label = text(left + SLOT / 2, isAbove ? made.top - 7 : made.foot + 14, said, "size");
  return { ...made, label };
}

function block(left, level, thick, tall, kind) {
  const [aside, up] = [ASIDE * tall, UP * tall];
  const x = left + (SLOT - thick - aside) / 2;
  const y = level + (up - tall) / 2;
  const at = (across, down) => [x + thick + aside * across, y - up * across + tall * down]; // of the face with the maps
  const faces = s(
    "g",
    { class: `block ${kind}` },
    path("top", [[x, y], [x + aside, y - up], [x + thick + aside, y - up], [x + thick, y]]),
    path("front", [[x, y], [x + thick, y], [x + thick, y + tall], [x, y + tall]]),
    path("face", [at(0, 0), at(1, 0), at(1, 1), at(0, 1)]),
  );
  return { faces, at, enter: [x - 2, y + tall / 2], top: y - up, foot: y + tall };
}

function bar(left, level, long, kind) {
  const [x, y, thick] = [left + SLOT / 2 - 5, level - long / 2, 10];
  const faces = s("g", { class: `block ${kind}` }, path("face", [[x, y], [x + thick, y], [x + thick, y + long], [x, y + long]]));
  return { faces, leave: [x + thick + 2, level], enter: [x - 2, level], top: y, foot: y + long };
}

function group(layer, i, parts, bottom, height, choose) {
  const middle = SLOT * (i + 1.5);
  const said = words(layer);
  return s(
    "g",
    { class: "layer", role: "tab", tabindex: -1, "aria-label": `${layer.name}: ${said.join(", ")}`, onclick: choose },
    s("rect", { class: "band", x: middle - SLOT / 2 + 3, y: 2, width: SLOT - 6, height: height + 2, rx: 10 }),
    text(middle, 18, layer.name, "title"),
    parts.map((part) => [part.faces, part.label]),
    said.map((line, j) => text(middle, bottom + LINE * j, line)),
  );
}

// The kernel and what follows it.
function words(layer) {
  const kernel = layer.size ? `${layer.size} × ${layer.size}${layer.stride > 1 ? `, stride ${layer.stride}` : ""}` : "dense";
  return [kernel, ...layer.then.map((name) => name.replaceAll("_", " "))];
}

// From each column that a layer looks at to the one that looks; the kernel is drawn where it looks.
function arrows(layer, before, from, to, crop) {
  const side = before ? before.leaves[1] : crop;
  const part = layer.size && side ? Math.min(1, layer.size / side) : 0;
  const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map((corner) => corner.map((sign) => 0.5 + (sign * part) / 2));
  const windows = from.map((one) => one.at && part > 0 && path("window", corners.map((corner) => one.at(...corner))));
  const lines = to.flatMap((target, column) =>
    from
      .filter((_, other) => from.length === 1 || to.length === 1 || layer.input === "all" || other === column)
      .map((source) => {
        const [[x1, y1], [x2, y2]] = [source.leave ?? source.at(0.5, 0.5), target.enter];
        return s("path", { class: "arrow", d: `M${round(x1)} ${round(y1)}L${round(x2)} ${round(y2)}`, "marker-end": "url(#tip)" });
      }),
  );
  return [windows, lines];
}

function move(event, groups) {
  const at = groups.indexOf(event.target.closest(".layer"));
  if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "Enter" || event.key === " ") groups[at].dispatchEvent(new MouseEvent("click"));
  else {
    const to = groups[{ ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: groups.length - 1 }[event.key]];
    if (!to) return;
    to.focus();
  }
  event.preventDefault();
}

function path(kind, points) {
  return s("path", { class: kind, d: `M${points.map(([x, y]) => `${round(x)} ${round(y)}`).join("L")}z` });
}

function text(x, y, content, kind = null) {
  return s("text", { class: kind, x: round(x), y: round(y), "text-anchor": "middle" }, content);
}

function round(number) {
  return Number(number.toFixed(1));
}
