// Decodes what model.py encoded.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const BASE = "\ue000"; // in a text: that of another source
const [WITNESS, VOLATILE, TORCH, EVALUATED, REMOVED] = [0, 1, 2, 3, 4];
const STATES = [
  ["in the witness", "Remembered: it is not evaluated while the facts that stand for it hold."],
  ["volatile", "Evaluated on every check: no fact could say that it still holds."],
  ["left to torch", "Every check calls a function of torch or of Python for it."],
  ["evaluated", "Evaluated on every check: nothing is remembered of this entry (yet)."],
  ["not checked", "It follows from the guards that are checked, or another says the same."],
];

const memo = (compute) => {
  const known = [];
  return (at) => (known[at] === undefined ? (known[at] = compute(at)) : known[at]);
};

const sourceText = memo((at) => {
  const [base, text] = DATA.sources[at];
  return base < 0 ? DATA.texts[text] : DATA.texts[text].replace(BASE, () => sourceText(base));
});

const guardText = memo((at) => {
  const [text, , , sources] = DATA.guards[at];
  return DATA.texts[text]
    .split(BASE)
    .map((piece, i) => (i % 2 === 0 ? piece : piece === "s" ? sources.map(sourceText).join(", ") : sourceText(sources[+piece])))
    .join("");
});

// The steps of a path that are worth showing.
const labelsOf = memo((at) => {
  const [base, , label] = DATA.sources[at];
  const above = base < 0 ? [] : labelsOf(base);
  return label < 0 ? above : [...above, moduleName(DATA.texts[label])];
});

const moduleName = (name) => (name.startsWith("__import_") ? name.slice(9).replaceAll("_dot_", ".") : name);

// A list of modules that was iterated over.
function withoutLists(text) {
  const shorter = text.replace(/\blist\(([^()]*)\.__dict__\['_modules'\]\.values\(\)\)(\[\d+\])/g, "$1$2");
  return shorter === text ? text : withoutLists(shorter);
}

// As a user would write it.
const briefly = (text) =>
  withoutLists(text)
    .replace(/\bG\['(__import_\w+)'\]/g, (_, name) => moduleName(name))
    .replace(/\.__dict__\['_(?:modules|parameters|buffers)'\]\['(\w+)'\]/g, (_, name) => (/^\d+$/.test(name) ? `[${name}]` : `.${name}`))
    .replace(/\.__dict__\['(\w+)'\]/g, ".$1")
    .replace(/\b[LG]\['(\w+)'\]/g, "$1");

const lineOf = (at) => {
  const [file, line, name, code] = DATA.lines[at];
  return { file: DATA.files[file], line, name: DATA.texts[name], code: DATA.texts[code] };
};
const shortFile = (file) => file.split(/[/\\]/).slice(-2).join("/");
const placeOf = (line) => `${shortFile(line.file)}:${line.line}`;

// One guard of one entry.
class Row {
  constructor([guard, state, instructions, live, facts, ns, rule = -1, becomes = -1]) {
    Object.assign(this, { guard, state, instructions, live, facts, ns, rule, becomes });
    const [, test, makers, sources] = DATA.guards[guard];
    this.kind = DATA.tests[test].replaceAll("_", " ");
    this.makers = makers.map(([maker, stack]) => ({
      name: DATA.makers[maker],
      stack: stack < 0 ? [] : DATA.stacks[stack].map(lineOf),
    }));
    this.sources = sources;
  }

  get text() {
    return guardText(this.guard);
  }

  // Without the housekeeping of modules; what is too long loses its middle.
  get brief() {
    const text = briefly(this.text);
    return text.length <= 130 ? text : `${text.slice(0, 45)} … ${text.slice(-80)}`;
  }

  get maker() {
    return this.makers.length ? this.makers[0].name : "unknown";
  }

  // The line of the program that it was first made for, if torch knew it.
  get line() {
    const stack = this.makers.map((maker) => maker.stack).find((each) => each.length);
    return stack ? stack[stack.length - 1] : null;
  }

  get path() {
    if (this.sources.length > 1) return ["relations between objects"];
    const labels = labelsOf(this.sources[0]);
    return labels.length ? labels : ["state of the thread"];
  }

  // What a search looks through.
  get words() {
    if (this._words === undefined) {
      const made = this.makers.flatMap(({ name, stack }) => [name, ...stack.slice(-1).map((l) => `${l.file}:${l.line} ${l.code}`)]);
      this._words = [this.text, briefly(this.text), this.kind, STATES[this.state][0], ...made].join("\n").toLowerCase();
    }
    return this._words;
  }
}

const rowsOf = memo((entry) => DATA.entries[entry].guards.map((row) => new Row(row)));

// ---- numbers ----------------------------------------------------------------------------------------------------------

const figure = new Intl.NumberFormat("en");
const counted = (n, one, many = `${one}s`) => `${figure.format(n)} ${n === 1 ? one : many}`;

function nsText(ns) {
  if (ns === null || ns === undefined) return "";
  const [value, unit] = ns < 1000 ? [ns, "ns"] : ns < 1e6 ? [ns / 1e3, "µs"] : ns < 1e9 ? [ns / 1e6, "ms"] : [ns / 1e9, "s"];
  return `${value < 10 && unit !== "ns" ? value.toFixed(2) : value < 100 ? value.toFixed(1) : Math.round(value)} ${unit}`;
}

// ---- elements ---------------------------------------------------------------------------------------------------------

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, of] of Object.entries(value)) element.style.setProperty(key, of);
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const $ = (id) => document.getElementById(id);
const colour = (state) => `var(--state-${state})`;

// The first `most` of a list, and a button for the others.
function lazily(list, items, make, most = 60) {
  let shown = 0;
  const more = h("button", { type: "button", onclick: () => grow() });
  const grow = () => {
    list.append(...items.slice(shown, shown + most).map(make));
    shown = Math.min(items.length, shown + most);
    more.remove();
    if (shown < items.length) {
      more.textContent = `${counted(items.length - shown, "more", "more")}`;
      list.after(more);
    }
  };
  queueMicrotask(grow); // when the list is where it belongs
  return list;
}
