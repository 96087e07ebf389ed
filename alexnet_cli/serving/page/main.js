// The page: which view is shown, the index, and pictures that are dropped, pasted or chosen.

import { address, ask } from "./api.js";
import { announce, command, count, h, notice } from "./dom.js";
import { showMap } from "./map.js";
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
  for (const link of document.querySelectorAll("[data-view], .brand")) {
    link.href = address("/", { view: { pictures: "pictures", map: "map", training: "training" }[link.dataset.view], index: wanted });
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
  title(context.index);
  const upload = uploads.get(Number(parameters.get("picture")));
  const tools = { choose: () => file.click(), signal };
  if (upload) return showAnswer(main, { upload }, context, tools);
  if (parameters.has("row")) {
    const query = { row: Number(parameters.get("row")), generation: parameters.get("generation") };
    return showAnswer(main, query, context, tools);
  }
  return showStart(main, context, tools);
}

function title(text) {
  document.title = `${text} · alexnet`;
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
  const view = new URLSearchParams(location.search).get("view");
  go(address("/", { view, index: chooser.value }));
});

// Pictures

function search(picture) {
  if (!picture) return;
  number += 1;
  uploads.set(number, { number, file: picture, url: URL.createObjectURL(picture) });
  if (uploads.size > KEPT) {
    const [oldest, { url }] = uploads.entries().next().value;
    uploads.delete(oldest);
    URL.revokeObjectURL(url);
  }
  go(address("/", { index: chooser.value || null, picture: number }));
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
