// The most probable classes as horizontal bars, with the class's name on its bar, as in the paper's figure 4.

import { h, percent } from "./dom.js";

// `label`: the picture's own class, whose bar has another colour; null if it is not known.
export function bars(predictions, label) {
  return h("ol", { class: "bars" }, predictions.map((one) => bar(one, label)));
}

function bar(one, label) {
  const fill = h("span", { class: "fill" });
  fill.style.setProperty("--width", `${100 * one.probability}%`);
  const isOwn = label !== null && one.label === label;
  return h(
    "li",
    { class: isOwn ? "own" : null, title: isOwn ? "the class of this picture" : null },
    fill,
    h("span", { class: "name" }, one.name),
    h("span", { class: "number" }, percent(one.probability)),
  );
}

export function emptyBars() {
  return h("div", { class: "bars waiting", "aria-hidden": "true" }, [1, 2, 3, 4, 5].map(() => h("span", { class: "bone" })));
}
