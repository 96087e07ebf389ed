// Thumbnails in a grid. Each is a link that searches on from its picture; arrows move between them.

import { address, original, thumbnail } from "./api.js";
import { distance, fileName, h } from "./dom.js";

// `pictures`: as the server gives them, with or without a distance, or with the class that a mistake took them for.
// `context`: index, generation, has_files; `view`, if
// the links lead to another one than the search.
export function wall(pictures, context, label) {
  const list = h("ul", { class: "wall", "aria-label": label, onkeydown: move, onfocusin: remember });
  append(list, pictures, context);
  return list;
}

export function append(list, pictures, context) {
  list.append(...pictures.map((one) => tile(one, context)));
  if (!list.querySelector('.pick[tabindex="0"]')) activate(list.querySelector(".tile"));
}

function tile(one, context) {
  const name = fileName(one.path);
  const picture = h("img", {
    src: thumbnail(one.row, context),
    alt: "",
    width: 256,
    height: 256,
    loading: "lazy",
    decoding: "async",
    onerror: (event) => event.target.replaceWith(h("span", { class: "missing" }, "not there any more")),
  });
  const href = address("/", { view: context.view, index: context.index, row: one.row, generation: context.generation });
  const lines = [
    h("span", { class: "name" }, one.name ?? name),
    h(
      "span",
      { class: "detail" },
      one.distance === undefined ? null : h("span", { class: "number" }, distance(one.distance)),
      one.predicted_name !== undefined ? `→ ${one.predicted_name}` : one.name !== null && h("span", { class: "file" }, name),
    ),
  ];
  return h(
    "li",
    { class: "tile" },
    h("a", { class: "pick", href, tabindex: -1, title: one.path }, h("span", { class: "frame" }, picture), lines),
    context.has_files &&
      h(
        "a",
        {
          class: "original",
          href: original(one.row, context),
          target: "_blank",
          rel: "noopener",
          tabindex: -1,
          title: "Open the original",
          "aria-label": `Open the original of ${name}`,
        },
        "↗",
      ),
  );
}

export function emptyWall(tiles) {
  return h(
    "div",
    { class: "wall waiting", "aria-hidden": "true" },
    Array.from({ length: tiles }, () => h("span", { class: "bone" })),
  );
}

// One tile at a time is reached by Tab, the others by arrows.
function activate(tile) {
  if (!tile) return;
  for (const link of tile.parentElement.querySelectorAll('[tabindex="0"]')) link.tabIndex = -1;
  for (const link of tile.querySelectorAll("a")) link.tabIndex = 0;
}

function remember(event) {
  activate(event.target.closest(".tile"));
}

function move(event) {
  stepped(event, [...event.currentTarget.children])?.querySelector(".pick").focus();
}

// The one of `tiles`, in rows, that an arrow, Home or End leads to from the one in which `event` happens.
export function stepped(event, tiles) {
  const at = tiles.findIndex((tile) => tile.contains(event.target));
  if (at < 0 || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return null;
  const top = tiles[0].getBoundingClientRect().top;
  const columns = tiles.findIndex((tile) => tile.getBoundingClientRect().top > top);
  const row = columns < 0 ? tiles.length : columns;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row, Home: -at, End: tiles.length - 1 - at };
  const step = steps[event.key];
  if (step === undefined) return null;
  event.preventDefault();
  return tiles[at + step];
}
