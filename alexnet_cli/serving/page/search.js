// The search: a picture that is dropped, pasted or chosen, or one of the index; its classes and its neighbours.

import { address, ask, askPicture, original, thumbnail } from "./api.js";
import { bars, emptyBars } from "./bars.js";
import { announce, count, distance, fileName, h, notice, whole } from "./dom.js";
import { append, emptyWall, wall } from "./wall.js";

const MOST = 200; // neighbours that are asked for; the sliders choose among them
const KEPT = 12; // answers, so that the way back is immediate
const SAMPLES = 24; // pictures to begin with
const PREVIEW = "Its central square: this browser cannot show the file.";
export const LIMIT = 20e6; // bytes of a picture that the server takes
export const TOO_LARGE = "This picture is larger than 20 MB. Make it smaller first.";
let shown = 24; // how many neighbours, as the slider was left

const answers = new Map(); // by what was asked

async function answer(query, context, signal) {
  const key = JSON.stringify([context.index, context.generation, query.upload ? ["upload", query.upload.number] : ["row", query.row]]);
  let found = answers.get(key);
  if (!found) {
    const parameters = { index: context.index, generation: query.generation, k: MOST, row: query.row, name: query.upload?.file.name };
    const options = query.upload ? { method: "POST", body: query.upload.file, signal } : { signal };
    found = await ask("/api/search", parameters, options);
  }
  answers.delete(key);
  answers.set(key, found);
  if (answers.size > KEPT) answers.delete(answers.keys().next().value);
  return found;
}

// Where a search begins.
export function showStart(main, context, tools) {
  main.replaceChildren();
  return offer(main, context, tools, { title: "Find pictures like yours" });
}

// Adds to `main` a place to drop a picture on, and pictures of the index, whose links lead to `view`, to the search if
// there is none.
export async function offer(main, context, { choose, signal }, { title, view }) {
  const samples = h("div", {}, emptyWall(SAMPLES));
  main.append(
    h(
      "section",
      { class: "begin" },
      h("h1", {}, title),
      h(
        "div",
        { class: "drop" },
        h("p", { class: "lead" }, "Drop a picture here, or paste one"),
        h("button", { type: "button", class: "primary", onclick: choose }, "Choose a picture"),
        isLocal() && h("p", { class: "fine" }, "It stays on this machine."),
      ),
    ),
    h("section", {}, h("h2", {}, `Or begin with one of the ${whole(context.pictures)} in ${context.index}`), samples),
  );
  const found = await ask("/api/pictures", { index: context.index, spread: SAMPLES }, { signal });
  samples.replaceChildren(wall(found.pictures, { ...context, view, generation: found.generation }, "Pictures of the index"));
}

function isLocal() {
  return ["127.0.0.1", "localhost", "[::1]"].includes(location.hostname);
}

// `query`: {row, generation}, or {upload: {number, file, url}}; the url becomes that of the server's preview, with `isPreview`,
// if the browser cannot draw the file.
export async function showAnswer(main, query, context, { choose, signal }) {
  const side = h("div", { class: "side" }, emptyBars());
  const results = h("section", { class: "results", "aria-busy": "true" }, emptyWall(shown));
  main.replaceChildren(
    h(
      "div",
      { class: "search" },
      h(
        "aside",
        { class: "query" },
        queryFigure(query, context, signal),
        h("div", { class: "about" }, side, h("button", { type: "button", onclick: choose }, "Another picture")),
      ),
      results,
    ),
  );
  try {
    if (query.upload && query.upload.file.size > LIMIT) throw new Error(TOO_LARGE);
    const found = await answer(query, context, signal);
    fillSide(side, query, found, context);
    fillResults(results, query, found, { ...context, generation: found.generation });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    side.replaceChildren();
    results.replaceChildren(failed(error, context));
  }
  results.removeAttribute("aria-busy");
}

function failed(error, context) {
  announce(error.message);
  const title = error.status === 409 ? "The index has changed" : "That did not work";
  const again = error.status === 409 && h("p", {}, h("a", { href: `/?index=${encodeURIComponent(context.index)}` }, "Begin again"));
  return notice(title, h("p", { role: "alert" }, error.message), again);
}

function queryFigure(query, context, signal) {
  const { upload } = query;
  const figure = h("figure");
  const show = (src, onerror) => {
    const image = h("img", { src, alt: "The picture that is searched with", onerror });
    figure.replaceChildren(image, ...(upload?.isPreview ? [h("figcaption", { class: "fine" }, PREVIEW)] : []));
  };
  const missing = (text) => figure.replaceChildren(h("span", { class: "missing" }, text));
  const cannot = () => missing("it cannot be shown");

  async function showPreview() {
    if (upload.file.size > LIMIT) return cannot();
    missing("Loading …");
    try {
      const { picture } = await askPicture("/api/preview", {}, { method: "POST", body: upload.file, signal });
      URL.revokeObjectURL(upload.url);
      Object.assign(upload, { url: URL.createObjectURL(picture), isPreview: true });
      show(upload.url, cannot);
    } catch {
      cannot(); // the answer of the search says why
    }
  }

  if (!upload) show(thumbnail(query.row, { index: context.index, generation: query.generation }), cannot);
  else show(upload.url, upload.isPreview ? cannot : showPreview);
  return figure;
}

function fillSide(side, query, found, context) {
  const self = query.upload ? null : found.neighbours.find((one) => one.row === query.row);
  const name = query.upload ? query.upload.file.name : self && fileName(self.path);
  side.replaceChildren(
    h(
      "p",
      { class: "caption" },
      name && h("span", { class: "file", title: self ? self.path : name }, name),
      self && self.name !== null && h("span", { class: "label" }, "class ", h("strong", {}, self.name)),
      self && context.has_files &&
        h("a", { href: original(query.row, { ...context, generation: found.generation }), target: "_blank", rel: "noopener" }, "Open the original"),
    ),
    h("h2", {}, "The network says"),
    ...(found.predictions.length
      ? [bars(found.predictions, found.label ?? null), h("a", { href: toNetwork(query, context, found) }, "What its layers see")]
      : [h("p", { class: "fine" }, "The picture is not where it was indexed. Its neighbours are known, its classes are not.")]),
  );
}

function toNetwork(query, context, found) {
  const picture = query.upload ? { picture: query.upload.number } : { row: query.row, generation: found.generation };
  return address("/", { view: "network", index: context.index, ...picture });
}

function fillResults(results, query, found, context) {
  const near = found.neighbours.filter((one) => one.row !== query.row);
  if (!near.length) {
    results.replaceChildren(notice("No neighbours", h("p", {}, "This picture is the only one of its index.")));
    return;
  }
  const [nearest, furthest] = [near[0].distance, near[near.length - 1].distance];
  const state = { count: Math.min(shown, near.length), most: furthest, label: "" };
  const list = wall([], context, "Nearest pictures, nearest first");
  const summary = h("p", { class: "summary", "aria-live": "polite" });
  const nothing = h("p", { class: "notice", hidden: true });

  function draw() {
    const within = near.filter((one) => one.distance <= state.most);
    const fit = within.filter((one) => state.label === "" || key(one) === state.label);
    const chosen = fit.slice(0, state.count);
    list.replaceChildren();
    append(list, chosen, context);
    summary.textContent = `${count(chosen.length, "picture")} of the ${whole(near.length)} nearest`;
    nothing.hidden = chosen.length > 0;
    nothing.textContent = `None of the ${whole(near.length)} nearest fits: choose a larger distance, or all classes.`;
  }

  results.replaceChildren(
    h(
      "header",
      { class: "bar" },
      h("div", {}, h("h1", { tabindex: -1 }, "Nearest pictures"), summary),
      h("div", { class: "controls" }, howMany(near, state, draw), howFar(nearest, furthest, state, draw), whichClass(near, state, draw)),
    ),
    list,
    nothing,
  );
  draw();
  announce(`${count(near.length, "neighbour")} found`);
}

function howMany(near, state, draw) {
  return slider("How many", { min: 1, max: near.length, step: 1, value: state.count }, whole, (value) => {
    shown = state.count = value;
    draw();
  });
}

function howFar(nearest, furthest, state, draw) {
  const steps = 100;
  const step = (furthest - nearest) / steps;
  const at = (value) => (value === steps ? furthest : nearest + value * step);
  return slider("Distance up to", { min: 0, max: steps, step: 1, value: steps }, (value) => distance(at(value)), (value) => {
    state.most = at(value);
    draw();
  });
}

// Of the class of a picture: a class may be called "null".
function key(one) {
  return JSON.stringify(one.label);
}

function whichClass(near, state, draw) {
  const counts = new Map();
  for (const one of near) counts.set(key(one), [one.name ?? "no class", (counts.get(key(one))?.[1] ?? 0) + 1]);
  if (counts.size < 2) return null;
  const choices = [...counts].sort(([, [, a]], [, [, b]]) => b - a);
  const choose = (event) => {
    state.label = event.target.value;
    draw();
  };
  return h(
    "label",
    { class: "control" },
    h("span", {}, "Class"),
    h(
      "select",
      { onchange: choose },
      h("option", { value: "" }, `All (${whole(near.length)})`),
      choices.map(([label, [name, number]]) => h("option", { value: label }, `${name} (${whole(number)})`)),
    ),
  );
}

export function slider(title, attributes, format, changed) {
  const output = h("b", {}, format(attributes.value)); // not an <output>, which the label would name
  const input = h("input", {
    type: "range",
    ...attributes,
    "aria-valuetext": format(attributes.value),
    oninput: () => {
      output.textContent = format(input.valueAsNumber);
      input.setAttribute("aria-valuetext", output.textContent);
      changed(input.valueAsNumber);
    },
  });
  return h("label", { class: "control" }, h("span", {}, title, " ", output), input);
}
