// Elements without HTML: every text is text, whatever is in a file's name.

// What turns the direction of writing, so that a name reads as another; and control characters, but a tab and a new line.
const MISLEADING = /[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f-\x9f]/g;
const READ = new Set(["alt", "aria-label", "title"]); // attributes that are text
const SVG = "http://www.w3.org/2000/svg";

// An element with attributes, and listeners such as `onclick`; children that are null or false are left out.
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

// The same within a drawing.
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, READ.has(name) ? straight(value) : value);
  }
  const shown = children.flat(Infinity).filter((child) => child !== null && child !== false && child !== undefined);
  for (const child of shown) element.append(typeof child === "string" ? straight(child) : child);
  return element;
}

export function straight(text) {
  return String(text).replace(MISLEADING, "\ufffd");
}

// Tell those who cannot see it what has changed.
export function announce(text) {
  document.getElementById("status").textContent = straight(text);
}

const WHOLE = new Intl.NumberFormat("en");

export function count(number, noun, several = `${noun}s`) {
  return `${WHOLE.format(number)} ${number === 1 ? noun : several}`;
}

export function whole(number) {
  return WHOLE.format(number);
}

// A fraction as a percentage; never 0 % or 100 % of what is not quite that.
export function percent(fraction) {
  if (fraction > 0 && fraction < 0.001) return "< 0.1 %";
  if (fraction < 1 && fraction > 0.999) return "> 99.9 %";
  return `${(100 * fraction).toFixed(1)} %`;
}

export function distance(value) {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export function fileName(path) {
  return path.split(/[/\\]/).pop();
}

// A notice in the place of content: what is the matter, and what to do.
export function notice(title, ...content) {
  return h("section", { class: "notice" }, h("h2", {}, title), ...content);
}

export function command(text) {
  return h("pre", { class: "command" }, h("code", {}, text));
}
