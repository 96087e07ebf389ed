// The page: which view is shown, the index, and pictures that are dropped, pasted or chosen.

import { address, ask } from "./api.js";
import { showMap } from "./atlas.js";
import { announce, command, count, h, notice, straight } from "./dom.js";
import { showNetwork } from "./network.js";
import { showPictures } from "./pictures.js";
import { showAnswer, showStart } from "./search.js";
import { showTraining } from "./training.js";

const KEPT = 30; // pictures that were sent, so that the way back leads to them
const main = document.getElementById("main");
const chooser = document.getElementById("index");
const file = document.getElementById("file");
const dropHere = document.getElementById("drop-here");
const uploads = new Map(); // by number
let number = 0;
let last = {}; // what names the picture that was looked at last: an upload, or a row of an index
let current = new AbortController();

// Views

async function show({ scroll = 0, focusWall = false } = {}) {
  current.abort();
  const { signal } = (current = new AbortController());
  const parameters = new URLSearchParams(location.search);
  const view = parameters.get("view") ?? "search";
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    await showView(view, parameters, signal);
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    announce(error.message);
    const retry = h("p", {}, h("button", { type: "button", onclick: () => show() }, "Try again"));
    main.replaceChildren(notice("That did not work", h("p", { role: "alert" }, error.message), retry));
  }
  if (signal.aborted) return;
  scrollTo(0, scroll);
  if (focusWall) main.querySelector(".wall .pick")?.focus({ preventScroll: true });
}

async function showView(view, parameters, signal) {
  const { indexes, workspace } = await ask("/api/indexes", {}, { signal });
  const wanted = parameters.get("index") ?? indexes.find((one) => !one.error)?.index ?? indexes[0]?.index;
  chooseAmong(indexes, wanted);
  chooser.closest("label").hidden = view === "training" || !indexes.length;
  remember(view, parameters, wanted);
  for (const link of document.querySelectorAll("[data-view], .brand")) {
    const { view: to } = link.dataset;
    link.href = address("/", { view: to === "search" ? null : to, index: wanted, ...(to === "network" && last) });
  }
  if (view === "training") {
    title("Training");
    return showTraining(main, { workspace, signal });
  }
  if (!indexes.length) return showNoIndex(workspace);
  const context = { has_files: false, ...(await ask("/api/info", { index: wanted }, { signal })) };
  if (view === "pictures") {
    title(`Pictures of ${context.index}`);
    return showPictures(main, context, { parameters, go, signal });
  }
  if (view === "map") {
    title(`Map of ${context.index}`);
    return showMap(main, context, { workspace, go, signal });
  }
  const query = asked(parameters);
  const tools = { choose: () => file.click(), parameters, workspace, keep, signal };
  if (view === "network") {
    title(`The network ${context.model}`);
    return showNetwork(main, query, context, tools);
  }
  title(context.index);
  return query ? showAnswer(main, query, context, tools) : showStart(main, context, tools);
}

// The picture that the address names; null if there is none.
function asked(parameters) {
  const upload = uploads.get(Number(parameters.get("picture")));
  if (upload) return { upload };
  return parameters.has("row") ? { row: Number(parameters.get("row")), generation: parameters.get("generation") } : null;
}

// The network's view follows the picture: a row only within its index.
function remember(view, parameters, index) {
  if (parameters.has("picture")) last = { picture: parameters.get("picture") };
  else if (parameters.has("row")) last = { row: parameters.get("row"), generation: parameters.get("generation"), index };
  else if (view === "network" || (last.index && last.index !== index)) last = {};
}

// The layer and the unit that are looked at, in the address: another picture shows the same.
function keep(layer, unit) {
  const parameters = Object.fromEntries(new URLSearchParams(location.search));
  history.replaceState(history.state, "", address("/", { ...parameters, layer, unit }));
}

function title(text) {
  document.title = straight(`${text} · alexnet`);
}

function chooseAmong(indexes, wanted) {
  chooser.replaceChildren(
    ...indexes.map((one) =>
      h(
        "option",
        { value: one.index, selected: one.index === wanted },
        one.error ? `${one.index} (damaged)` : `${one.index} · ${count(one.pictures, "picture")}`,
      ),
    ),
  );
}

function showNoIndex(workspace) {
  title("No index");
  main.replaceChildren(
    notice(
      "There is no index yet",
      h("p", {}, "An index holds what the network sees in each of your pictures. Make one of a folder of them:"),
      command(`alexnet index PHOTOS --workspace ${workspace}`),
      h("p", {}, "Then reload this page."),
    ),
  );
}

// Ways from one view to the next

function go(href, state = {}) {
  const focusWall = main.querySelector(".wall")?.contains(document.activeElement) ?? false;
  history.replaceState({ ...history.state, scroll: scrollY }, "");
  history.pushState(state, "", href);
  return show({ focusWall });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  const isPlain = event.button === 0 && !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
  if (!link || !isPlain || event.defaultPrevented || link.target || link.origin !== location.origin || link.pathname !== "/" || link.hash) return;
  event.preventDefault();
  go(link.href);
});
history.scrollRestoration = "manual";
addEventListener("popstate", (event) => show({ scroll: event.state?.scroll ?? 0 }));
chooser.addEventListener("change", () => {
  const { view, layer } = Object.fromEntries(new URLSearchParams(location.search));
  const same = view === "network" && last.picture ? { layer, picture: last.picture } : {}; // to compare two networks
  go(address("/", { view, index: chooser.value, ...same }));
});

// Pictures

function search(picture) {
  if (!picture) return;
  number += 1;
  uploads.set(number, { number, file: picture, url: URL.createObjectURL(picture) });
  if (uploads.size > KEPT) {
    const [oldest, { url, square }] = uploads.entries().next().value;
    uploads.delete(oldest);
    for (const made of [url, square]) if (made) URL.revokeObjectURL(made);
  }
  const here = new URLSearchParams(location.search);
  const kept = here.get("view") === "network" ? { view: "network", layer: here.get("layer"), unit: here.get("unit") } : {};
  go(address("/", { ...kept, index: chooser.value || null, picture: number }));
}

file.addEventListener("change", () => {
  search(file.files[0]);
  file.value = ""; // so that the same file can be chosen again
});
addEventListener("paste", (event) => {
  const pasted = [...(event.clipboardData?.files ?? [])];
  search(pasted.find((one) => one.type.startsWith("image/")) ?? pasted[0]);
});

const isFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragover", (event) => {
  if (!isFile(event)) return;
  event.preventDefault();
  dropHere.hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) dropHere.hidden = true;
});
addEventListener("drop", (event) => {
  if (!isFile(event)) return;
  event.preventDefault();
  dropHere.hidden = true;
  search(event.dataTransfer.files[0]);
});

show();
