// Training runs and their curves, live while one trains.

import { ask } from "./api.js";
import { chart } from "./chart.js";
import { command, h, notice, percent, whole } from "./dom.js";

const SECONDS = 3; // between two looks while a run trains
const IDLE_SECONDS = 15;
const STATES = { training: "training", finished: "finished", stopped: "stopped" };

export async function showTraining(main, { workspace, signal }) {
  const list = h("div", { class: "runs" }, h("p", { class: "loading waiting" }, "Loading …"));
  main.replaceChildren(h("section", { class: "training" }, h("h1", {}, "Training runs"), list));
  let [before, timer] = ["", null];
  signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
  const look = async () => {
    const { runs } = await ask("/api/runs", {}, { signal });
    const now = JSON.stringify(runs);
    if (now !== before) draw(list, runs, workspace);
    before = now;
    const wait = runs.some((run) => run.state === "training") ? SECONDS : IDLE_SECONDS;
    timer = setTimeout(() => look().catch((error) => lost(list, error, look, signal)), 1000 * wait);
  };
  await look();
}

// The server may have been stopped: what is shown stays, and the next look comes.
function lost(list, error, look, signal) {
  if (error.name === "AbortError" || signal.aborted) return;
  if (!list.querySelector(".notice")) list.prepend(h("p", { class: "notice", role: "alert" }, error.message));
  setTimeout(() => {
    if (!signal.aborted) look().then(() => list.querySelector(".notice[role=alert]")?.remove(), (again) => lost(list, again, look, signal));
  }, 1000 * IDLE_SECONDS);
}

function draw(list, runs, workspace) {
  const open = new Set([...list.querySelectorAll("details[open]")].map((one) => one.dataset.run));
  if (!runs.length) {
    list.replaceChildren(
      notice(
        "No training runs yet",
        h("p", {}, "Pack your pictures, in a folder for each class, then train on them:"),
        command(`alexnet prep PHOTOS --workspace ${workspace}\nalexnet train --workspace ${workspace}`),
      ),
    );
    return;
  }
  list.replaceChildren(...runs.map((run) => card(run, open.has(run.name))));
}

function card(run, isOpen) {
  const last = run.history.at(-1);
  const epochs = last ? `epoch ${whole(last.epoch ?? run.history.length)}${run.epochs ? ` of ${whole(run.epochs)}` : ""}` : "no epoch is done yet";
  return h(
    "article",
    { class: "run" },
    h(
      "header",
      {},
      h("h2", {}, run.name),
      h("p", { class: "summary" }, h("span", { class: `state ${run.state}` }, STATES[run.state]), ` ${epochs}`, run.recipe && ` · recipe ${run.recipe}`),
    ),
    last && h("div", { class: "charts" }, errors(run), loss(run)),
    last && table(run, isOpen),
  );
}

function points(run, key) {
  return run.history.filter((row) => key in row && "epoch" in row).map((row) => [row.epoch, row[key]]);
}

function figure(title, run, series, format) {
  const drawn = series.filter((one) => one.points.length);
  if (!drawn.length) return null;
  const epochs = Math.max(run.epochs ?? 1, ...drawn.map((one) => one.points.at(-1)[0]));
  return h(
    "figure",
    {},
    h(
      "figcaption",
      {},
      h("strong", {}, title),
      drawn.map((one) => h("span", { class: `key ${one.kind}` }, one.name, " ", h("span", { class: "number" }, format(one.points.at(-1)[1])))),
    ),
    chart(title, drawn, epochs, format),
  );
}

function errors(run) {
  const series = [
    { name: "training", kind: "first", points: points(run, "train_error") },
    { name: "validation", kind: "second", points: points(run, "validation_error") },
  ];
  return figure("Top-1 error", run, series, (value, isTick) => (isTick ? `${Math.round(100 * value)} %` : percent(value)));
}

function loss(run) {
  const series = [{ name: "training", kind: "first", points: points(run, "loss") }];
  return figure("Loss", run, series, (value, isTick) => (isTick ? String(Number(value.toPrecision(2))) : value.toFixed(3)));
}

function table(run, isOpen) {
  const columns = [
    ["epoch", "epoch", whole],
    ["loss", "loss", (value) => value.toFixed(3)],
    ["train_error", "training error", percent],
    ["validation_error", "validation error", percent],
    ["learning_rate", "learning rate", (value) => String(Number(value.toPrecision(3)))],
    ["seconds", "seconds", (value) => whole(Math.round(value))],
  ].filter(([key]) => run.history.some((row) => key in row));
  const body = h("tbody");
  const fill = () => { // when it is opened: there may be many epochs
    if (body.hasChildNodes()) return;
    for (const row of [...run.history].reverse()) body.append(h("tr", {}, columns.map(([key, , format]) => h("td", {}, key in row ? format(row[key]) : "–"))));
  };
  if (isOpen) fill();
  return h(
    "details",
    { "data-run": run.name, open: isOpen, ontoggle: fill },
    h("summary", {}, "Every epoch"),
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": `Epochs of ${run.name}` },
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, columns.map(([, title]) => h("th", { scope: "col" }, title)))),
        body,
      ),
    ),
  );
}
