// Curves against epochs, as a drawing.

import { s } from "./dom.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [420, 190, 42, 10, 8, 24];

// `series`: {name, kind, points: [[epoch, value], ...]}; `epochs`: the last one on the axis.
export function chart(title, series, epochs, format) {
  const largest = series.flatMap((one) => one.points).reduce((most, [, value]) => Math.max(most, value), 1e-9);
  const top = Math.min(nice(largest), 1.7e308); // a tick that is rounded up is a number as well
  const x = (epoch) => LEFT + ((epoch - 1) / Math.max(1, epochs - 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM);
  const last = series.map((one) => `${one.name} ${format(one.points.at(-1)[1])}`).join(", ");
  return s(
    "svg",
    { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title} after the last epoch: ${last}` },
    [0, 0.25, 0.5, 0.75, 1].map((part) => [
      s("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(part * top), y2: y(part * top) }),
      s("text", { class: "tick", x: LEFT - 8, y: y(part * top) + 4, "text-anchor": "end" }, format(part * top, true)),
    ]),
    epochTicks(epochs).map((epoch) => s("text", { class: "tick", x: x(epoch), y: HEIGHT - 8, "text-anchor": "middle" }, epoch)),
    series.map((one) => curve(one, x, y)),
  );
}

function curve(one, x, y) {
  const path = one.points.map(([epoch, value], i) => `${i ? "L" : "M"}${x(epoch).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const [epoch, value] = one.points.at(-1);
  return s("g", { class: `curve ${one.kind}` }, s("path", { d: path }), s("circle", { cx: x(epoch), cy: y(value), r: 3.5 }));
}

// A number not much above `value` whose quarters are short to write.
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 1.2, 1.6, 2, 2.4, 2.8, 3.2, 4, 6, 8, 10].find((step) => step * power >= value * 0.999);
}

function epochTicks(epochs) {
  if (epochs <= 8) return Array.from({ length: epochs }, (_, i) => i + 1);
  const step = [2, 5, 10, 20, 25, 50, 100, 200, 500, 1000, 10000].find((one) => epochs / one <= 8) ?? epochs;
  return [1, ...Array.from({ length: Math.floor(epochs / step) }, (_, i) => (i + 1) * step)];
}
