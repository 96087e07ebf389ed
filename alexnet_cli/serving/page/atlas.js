// The pictures of an index where they lie on its map: dots from afar, thumbnails where there is room for them.

import { address, ask, thumbnail } from "./api.js";
import { command, count, fileName, h, notice, whole } from "./dom.js";

const TILE = 46, DOT = 3; // pixels: the side of a thumbnail, and the radius of a dot
const STEP = 1.5, MOST = 400; // a step of the zoom, and the largest
const KEPT = 1500; // thumbnails in memory

export async function showMap(main, context, { workspace, go, signal }) {
  const found = await ask("/api/embedding", { index: context.index }, { signal });
  if (!found.coordinates) {
    main.replaceChildren(
      notice(
        "This index has no map yet",
        h("p", {}, "A map puts pictures that the network finds alike next to each other. Make one, which takes a minute or two:"),
        command(`alexnet visualize embedding ${found.index} --workspace ${workspace}`),
        h("p", {}, "Then reload this page."),
      ),
    );
    return;
  }
  const colours = coloursOf(found);
  const canvas = h("canvas", { tabindex: 0, role: "application", "aria-label": "Map of the pictures: arrows move it, plus and minus zoom, Enter searches from the picture in its middle" });
  const said = h("p", { class: "summary", "aria-live": "polite" }, count(found.rows.length, "picture"));
  const map = new Plane(canvas, found, colours, { ...context, generation: found.generation }, (text) => (said.textContent = text), go);
  const button = (text, label, act) => h("button", { type: "button", "aria-label": label, title: label, onclick: act }, text);
  const controls = [button("+", "Zoom in", () => map.zoom(STEP)), button("−", "Zoom out", () => map.zoom(1 / STEP)), button("All", "Show all", () => map.all())];
  main.replaceChildren(
    h(
      "section",
      { class: "atlas" },
      h("header", { class: "bar" }, h("div", {}, h("h1", {}, `Map of ${context.index}`), said), h("div", { class: "controls" }, controls)),
      canvas,
      legend(colours, found.other),
      h("p", { class: "fine" }, "What is near is alike; how far apart groups lie, and how large they are, says little. Click a picture to search from it."),
    ),
  );
  map.watch(signal);
}

// The classes of the pictures, the most frequent ones first, and those of no class (null), if there are classes at all.
function coloursOf({ classes, colours, none, of }) {
  const counts = classes.map((name, i) => ({ name, i, colour: colours[i], pictures: 0 }));
  for (const one of of) if (one !== null) counts[one].pictures += 1;
  const often = counts.filter((one) => one.pictures).sort((a, b) => b.pictures - a.pictures);
  const found = new Map(often.map((one) => [one.i, one]));
  const without = of.filter((one) => one === null).length;
  if (often.length && without) found.set(null, { name: "no class", pictures: without, colour: none });
  return found;
}

function legend(colours, other) {
  if (!colours.size) return null;
  const all = [...colours.values()];
  const others = all.filter((one) => one.colour === other);
  const shown = all.filter((one) => one.colour !== other);
  if (others.length) shown.push({ name: count(others.length, "other class", "other classes"), colour: other, pictures: others.reduce((sum, one) => sum + one.pictures, 0) });
  const keys = shown.map(({ name, colour, pictures }) => {
    const key = h("li", { class: "key" }, name, " ", h("span", { class: "number" }, whole(pictures)));
    key.style.setProperty("--tint", colour);
    return key;
  });
  return h("ul", { class: "keys", "aria-label": "Colours of the classes" }, keys);
}

// What is seen of the map: its middle in units of the map, 0 to 1, and how many times it is enlarged.
class Plane {
  constructor(canvas, found, colours, context, tell, go) {
    Object.assign(this, { canvas, found, colours, context, tell, go, x: 0.5, y: 0.5, scale: 1 });
    this.images = new Map(); // row -> Image
    this.pointers = new Map(); // id -> where it is
    this.shown = []; // pictures that are drawn as thumbnails, with their places on the canvas
    const { length } = found.rows;
    this.order = Array.from({ length }, (_, i) => (i * 7919) % length); // so that thumbnails are of all regions
    if (new Set(this.order).size < length) this.order = Array.from({ length }, (_, i) => i);
    const listen = { pointerdown: "press", pointermove: "move", pointerup: "release", pointercancel: "cancel", keydown: "key" };
    for (const [event, method] of Object.entries(listen)) canvas.addEventListener(event, (told) => this[method](told));
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    for (const event of ["focus", "blur"]) canvas.addEventListener(event, () => this.draw());
  }

  watch(signal) {
    const observer = new ResizeObserver(() => this.resize());
    observer.observe(this.canvas);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => this.draw(), { signal });
    signal.addEventListener("abort", () => observer.disconnect(), { once: true });
  }

  resize() {
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    this.canvas.width = this.width * devicePixelRatio;
    this.canvas.height = this.height * devicePixelRatio;
    this.draw();
  }

  // How many pixels wide and high the whole map is.
  get sides() {
    return [this.scale * (this.width - TILE), this.scale * (this.height - TILE)];
  }

  at([x, y]) {
    const [across, down] = this.sides;
    return [this.width / 2 + (x - this.x) * across, this.height / 2 - (y - this.y) * down]; // y grows upwards
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    const pen = this.canvas.getContext("2d");
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    const taken = new Map(); // thumbnails by the squares of a grid that they touch
    this.shown = [];
    for (const i of this.order) {
      const [left, top] = this.at(this.found.coordinates[i]);
      if (left < -TILE || top < -TILE || left > this.width + TILE || top > this.height + TILE) continue;
      const colour = this.colours.get(this.found.of[i])?.colour ?? this.found.other;
      if (this.isFree(taken, left, top)) this.shown.push({ i, left, top, colour });
      else this.drawDot(pen, left, top, colour);
    }
    for (const one of this.shown) this.drawTile(pen, one);
    if (document.activeElement === this.canvas) this.drawMiddle(pen);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), 120); // once it rests
  }

  isFree(taken, left, top) {
    const [column, row] = [Math.floor(left / TILE), Math.floor(top / TILE)];
    for (let c = column - 1; c <= column + 1; c++) {
      for (let r = row - 1; r <= row + 1; r++) {
        const other = taken.get(`${c} ${r}`);
        if (other && Math.abs(other[0] - left) < TILE && Math.abs(other[1] - top) < TILE) return false;
      }
    }
    taken.set(`${column} ${row}`, [left, top]);
    return true;
  }

  drawDot(pen, left, top, colour) {
    pen.fillStyle = colour;
    pen.beginPath();
    pen.arc(left, top, DOT, 0, 2 * Math.PI);
    pen.fill();
  }

  drawTile(pen, { i, left, top, colour }) {
    const image = this.images.get(this.found.rows[i]);
    if (!image?.complete || !image.naturalWidth) return this.drawDot(pen, left, top, colour);
    pen.fillStyle = colour;
    pen.fillRect(left - TILE / 2, top - TILE / 2, TILE - 2, TILE - 2);
    pen.drawImage(image, left - TILE / 2 + 2, top - TILE / 2 + 2, TILE - 6, TILE - 6);
  }

  drawMiddle(pen) {
    const middle = this.nearest(this.width / 2, this.height / 2);
    if (!middle) return;
    pen.strokeStyle = getComputedStyle(this.canvas).getPropertyValue("--focus");
    pen.lineWidth = 3;
    pen.strokeRect(middle.left - TILE / 2 - 1, middle.top - TILE / 2 - 1, TILE, TILE);
  }

  load() {
    for (const { i } of this.shown) {
      const row = this.found.rows[i];
      if (this.images.has(row)) continue;
      const image = new Image();
      image.onload = () => this.draw();
      image.src = thumbnail(row, this.context);
      this.images.set(row, image);
    }
    for (const row of [...this.images.keys()].slice(0, Math.max(0, this.images.size - KEPT))) this.images.delete(row);
  }

  // The thumbnail that is nearest to a place on the canvas.
  nearest(left, top) {
    const off = (one) => Math.max(Math.abs(one.left - left), Math.abs(one.top - top));
    return this.shown.reduce((best, one) => (best === null || off(one) < off(best) ? one : best), null);
  }

  under(event) {
    const box = this.canvas.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    const one = this.nearest(left, top);
    return one && Math.max(Math.abs(one.left - left), Math.abs(one.top - top)) <= TILE / 2 ? one : null;
  }

  zoom(factor, left = this.width / 2, top = this.height / 2) {
    const [dx, dy] = [left - this.width / 2, top - this.height / 2];
    const before = this.sides;
    this.scale = Math.min(MOST, Math.max(1, this.scale * factor));
    const after = this.sides;
    this.x += dx / before[0] - dx / after[0]; // what is under the pointer stays there
    this.y -= dy / before[1] - dy / after[1];
    this.keep();
  }

  pan(dx, dy) {
    const [across, down] = this.sides;
    this.x -= dx / across;
    this.y += dy / down;
    this.keep();
  }

  all() {
    Object.assign(this, { x: 0.5, y: 0.5, scale: 1 });
    this.keep();
  }

  keep() {
    this.x = Math.min(1, Math.max(0, this.x));
    this.y = Math.min(1, Math.max(0, this.y));
    this.draw();
  }

  open(one) {
    if (one) this.go(address("/", { index: this.context.index, row: this.found.rows[one.i], generation: this.context.generation }));
  }

  // Pointers: one drags, two pinch, and one that does not move clicks

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.moved = this.pointers.size > 1;
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return this.tellOf(this.under(event));
    const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
    if (!this.moved && Math.hypot(dx, dy) < 4) return;
    this.moved = true;
    const other = [...this.pointers.values()].find((one) => one.pointerId !== event.pointerId);
    this.pointers.set(event.pointerId, event);
    if (!other) return this.pan(dx, dy);
    const apart = (one) => Math.max(1, Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY));
    const box = this.canvas.getBoundingClientRect();
    this.zoom(apart(event) / apart(before), (event.clientX + other.clientX) / 2 - box.left, (event.clientY + other.clientY) / 2 - box.top);
  }

  release(event) {
    const isClick = this.pointers.delete(event.pointerId) && !this.moved && event.button === 0;
    if (isClick) this.open(this.under(event));
  }

  cancel(event) {
    this.pointers.delete(event.pointerId);
  }

  wheel(event) {
    event.preventDefault();
    const box = this.canvas.getBoundingClientRect();
    this.zoom(STEP ** Math.max(-1, Math.min(1, -event.deltaY / 100)), event.clientX - box.left, event.clientY - box.top);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const by = TILE * 1.5;
    const acts = {
      ArrowLeft: () => this.pan(by, 0),
      ArrowRight: () => this.pan(-by, 0),
      ArrowUp: () => this.pan(0, by),
      ArrowDown: () => this.pan(0, -by),
      "+": () => this.zoom(STEP),
      "=": () => this.zoom(STEP),
      "-": () => this.zoom(1 / STEP),
      0: () => this.all(),
      Enter: () => this.open(this.nearest(this.width / 2, this.height / 2)),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
    requestAnimationFrame(() => this.tellOf(this.nearest(this.width / 2, this.height / 2)));
  }

  tellOf(one) {
    this.canvas.classList.toggle("on-picture", one !== null);
    if (!one) return;
    const name = this.found.classes[this.found.of[one.i]];
    const file = fileName(this.found.paths[one.i]);
    this.tell(name === undefined ? file : `${name} · ${file}`);
  }
}
