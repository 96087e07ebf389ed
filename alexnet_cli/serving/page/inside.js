// What a layer of the network shows for a picture: its maps, where each of them responds, and one unit in detail.

import { address } from "./api.js";
import { announce, count, h, notice, whole } from "./dom.js";
import { askMaps, mapGrid } from "./maps.js";
import { LIMIT, TOO_LARGE, slider } from "./search.js";
import { seen } from "./seen.js";
import { aboutUnit } from "./unit.js";

const POINT = "Point at a map to see where it responds; click it to keep it.";
const FEW = 24; // maps of a column that are drawn larger than more are
const DENSE = "Each of its units is connected to all that the layer gets: it tells what is there, not where, so it has no maps.";
let order = "number"; // of the maps, as it was chosen last
let side = null; // of a map on the page, in pixels, as it was chosen last

export class Inside {
  constructor(query, network, context, { workspace, keep, signal }) {
    Object.assign(this, { query, network, context, workspace, keep });
    this.kept = new Map(); // the maps of the layers that were looked at, by their names
    this.asking = new AbortController();
    signal.addEventListener("abort", () => this.asking.abort());
    this.said = h("p", { class: "fine said", "aria-live": "polite" });
    this.panel = h("section", { class: "unit", "aria-label": "The unit" });
    this.results = h("section", { class: "results" });
    this.view = query && seen(query, network, context, signal);
    const aside = query && h("aside", { class: "beside" }, h("div", { class: "seen" }, this.view, this.said), this.panel);
    this.element = h("div", { class: query ? "inside" : null }, aside, this.results);
  }

  // A layer, and one of its units, null if none is chosen.
  async show(layer, unit) {
    this.asking.abort();
    const { signal } = (this.asking = new AbortController());
    Object.assign(this, { layer, unit, maps: [] });
    this.panel.replaceChildren();
    this.said.textContent = "";
    this.view?.clear();
    const hasMaps = this.network.maps.includes(layer.name);
    const list = h("div", {}, h("p", { class: "loading waiting" }, "Loading …"));
    const content = !hasMaps ? h("p", { class: "fine" }, mapless(layer)) : this.query && list;
    const sort = hasMaps && this.query ? () => this.fill(list) : null;
    this.results.replaceChildren(this.header(layer, sort), ...(content ? [content] : []));
    if (!hasMaps || !this.query) return;
    try {
      this.maps = await this.ask(layer, signal);
      this.fill(list);
      announce(`${count(this.maps.length, "map")} of ${layer.name}`);
      if (unit !== null) await this.choose(this.maps[unit]);
    } catch (error) {
      if (error.name !== "AbortError") list.replaceChildren(failed(error, this.context));
    }
  }

  async ask(layer, signal) {
    const { query, kept } = this;
    if (query.upload && query.upload.file.size > LIMIT) throw new Error(TOO_LARGE);
    if (!kept.has(layer.name)) kept.set(layer.name, await askMaps(query, layer.name, this.context, signal));
    return kept.get(layer.name);
  }

  // `sort`: called when another order is chosen; null if there are no maps.
  header(layer, sort) {
    const about = h("div", {}, h("h2", {}, layer.name), h("p", { class: "summary" }, summary(layer, layer === this.network.layers[0])));
    return h("header", { class: "bar" }, about, sort && h("div", { class: "controls" }, this.size(layer), whichOrder(sort)));
  }

  size({ kernels, columns }) {
    const resize = (value) => this.results.style.setProperty("--map", `${value}px`);
    const value = side ?? (kernels / columns > FEW ? 56 : 112);
    resize(value);
    return slider("Size", { min: 40, max: 400, step: 1, value }, (pixels) => `${whole(pixels)} pixels`, (chosen) => resize((side = chosen)));
  }

  fill(list) {
    const { columns } = this.layer;
    const each = this.maps.length / columns;
    const parts = Array.from({ length: columns }, (_, column) => {
      const maps = this.maps.slice(column * each, (column + 1) * each);
      if (order === "strength") maps.sort((a, b) => b.value - a.value);
      const title = columns > 1 && h("h3", { class: `of-column column-${column % 4}` }, `Column ${column}`);
      const events = { look: (map) => this.look(map), choose: (map) => this.choose(map) };
      return h("div", {}, title || [], mapGrid(columns > 1 ? `Maps of column ${column}` : "Maps", maps, this.layer, events));
    });
    list.replaceChildren(...parts);
    this.mark();
  }

  // Which map is chosen.
  mark() {
    for (const button of this.results.querySelectorAll(".map")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.unit) === this.unit));
    }
    this.look(null);
  }

  // Where `map` responds; if it is null, where the chosen one does.
  look(map) {
    const shown = map ?? this.maps[this.unit];
    if (!shown) {
      this.view.clear();
      this.said.textContent = POINT;
      return;
    }
    this.view.show(shown, this.layer.field);
    const strongest = `strongest, ${Number(shown.value.toPrecision(3))}, where the frame is: all that this unit sees.`;
    this.said.textContent = `${this.layer.name}, map ${shown.unit}: ${shown.value > 0 ? strongest : "nothing in this picture excites it."}`;
  }

  async choose(map) {
    this.unit = map.unit;
    this.keep(this.layer.name, map.unit);
    this.mark();
    const { signal } = this.asking;
    try {
      const content = await aboutUnit(this.layer, map.unit, this, signal);
      if (signal.aborted || this.unit !== map.unit) return; // another one was chosen meanwhile
      this.panel.replaceChildren(...content);
      this.panel.scrollIntoView({ block: "nearest" });
    } catch (error) {
      if (error.name !== "AbortError") this.panel.replaceChildren(h("p", { class: "fine", role: "alert" }, error.message));
    }
  }
}

function whichOrder(sort) {
  const option = ([value, text]) => h("option", { value, selected: value === order }, text);
  const changed = (event) => {
    order = event.target.value;
    sort();
  };
  const orders = [["number", "In order"], ["strength", "Strongest first"]];
  return h("label", { class: "control" }, h("span", {}, "Maps"), h("select", { onchange: changed }, orders.map(option)));
}

function failed(error, context) {
  announce(error.message);
  const href = address("/", { view: "network", index: context.index });
  const begin = error.status === 409 && h("p", {}, h("a", { href }, "Begin again"));
  return notice(error.status === 409 ? "The index has changed" : "That did not work", h("p", { role: "alert" }, error.message), begin);
}

function summary(layer, isFirst) {
  const { kind, kernels, size, output, columns, weights, input } = layer;
  const of = columns > 1 ? ` in ${columns} columns` : "";
  const from = columns > 1 && !isFirst ? `, which look at ${input === "all" ? "all columns" : "their own column"}` : "";
  if (output.length === 1) return `${count(kernels, "unit")}${of}${from} · ${count(weights, "weight")}`;
  const name = kind === "convolution" ? "kernel" : `${kind} kernel`;
  return `${count(kernels, name)} of ${size} × ${size}${of}${from} · maps of ${output[2]} × ${output[1]} · ${count(weights, "weight")}`;
}

function mapless(layer) {
  if (layer.output.length === 1) return DENSE;
  return "The model's file names no maps of this layer: export it again with alexnet export.";
}
