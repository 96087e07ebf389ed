// The pictures of an index by class, in pages.

import { address, ask } from "./api.js";
import { count, h, whole } from "./dom.js";
import { append, emptyWall, wall } from "./wall.js";

const PAGE = 60;

export async function showPictures(main, context, { parameters, go, signal }) {
  const list = h("nav", { class: "classes", "aria-label": "Classes" });
  const results = h("section", { class: "results", "aria-busy": "true" }, emptyWall(24));
  main.replaceChildren(h("div", { class: "browse" }, list, results));
  const asked = ["/api/classes", "/api/mistakes"].map((path) => ask(path, { index: context.index }, { signal }));
  const [{ classes }, report] = await Promise.all(asked);
  if (report.report !== null) classes.unshift({ name: "Mistakes", pictures: report.mistakes, report });
  const wanted = (one) => (parameters.has("mistakes") ? one.report : !one.report && (one.label ?? "") === parameters.get("label"));
  const chosen = classes.find(wanted) ?? classes.find((one) => !one.report);
  const href = (one) =>
    address("/", { view: "pictures", index: context.index, ...(one.report ? { mistakes: "" } : { label: one.label ?? "" }) });
  list.replaceChildren(
    h(
      "select",
      { "aria-label": "Class", onchange: (event) => go(event.target.value) },
      classes.map((one) => h("option", { value: href(one), selected: one === chosen }, `${name(one)} (${whole(one.pictures)})`)),
    ),
    h(
      "ul",
      {},
      classes.map((one) =>
        h(
          "li",
          {},
          h(
            "a",
            { href: href(one), "aria-current": one === chosen ? "true" : null },
            h("span", { class: "name" }, name(one)),
            h("span", { class: "number" }, whole(one.pictures)),
          ),
        ),
      ),
    ),
  );
  list.querySelector('[aria-current="true"]').scrollIntoView({ block: "nearest" });
  if (chosen.report) showMistakes(results, report, context);
  else await showClass(results, chosen, context, signal);
}

function showMistakes(results, report, context) {
  const summary = `${whole(report.mistakes)} of ${count(report.images, "picture")} in ${report.report}: their class → the network's, the worst first`;
  results.replaceChildren(
    h("header", { class: "bar" }, h("div", {}, h("h1", {}, "Mistakes"), h("p", { class: "summary" }, summary))),
    wall(report.pictures, { ...context, generation: report.generation }, "Mistakes, the worst first"),
  );
  results.removeAttribute("aria-busy");
}

function name(one) {
  return one.name ?? "no class";
}

async function showClass(results, chosen, context, signal) {
  let after = -1;
  const load = async () => {
    const parameters = { index: context.index, label: chosen.label ?? "", after, count: PAGE, generation: context.generation };
    const page = await ask("/api/pictures", parameters, { signal });
    return { ...page, pictures: page.pictures.map((one) => ({ ...one, name: null })) }; // the heading has it
  };
  const first = await load();
  const list = wall(first.pictures, context, `Pictures of ${name(chosen)}`);
  const more = h("button", { type: "button", class: "more", hidden: !first.more, onclick: loadMore }, "Show more");
  after = first.pictures.at(-1)?.row ?? -1;

  async function loadMore() {
    more.disabled = true;
    try {
      const next = await load();
      const at = list.children.length;
      append(list, next.pictures, context);
      after = next.pictures.at(-1)?.row ?? after;
      if (document.activeElement === more || document.activeElement === document.body) list.children[at]?.querySelector(".pick").focus({ preventScroll: true });
      more.hidden = !next.more;
    } catch (error) {
      if (error.name !== "AbortError") more.replaceWith(h("p", { class: "notice", role: "alert" }, error.message));
    }
    more.disabled = false;
  }

  results.replaceChildren(
    h("header", { class: "bar" }, h("div", {}, h("h1", {}, name(chosen)), h("p", { class: "summary" }, count(chosen.pictures, "picture")))),
    list,
    more,
  );
  results.removeAttribute("aria-busy");
}
