// The page: what is shown of the entry that is chosen, and of all of them.

let chosen = 0;
const entryOf = (at = chosen) => DATA.entries[at];
const nameOf = (entry) => entry.name.replace(/ \(.*\)$/, "");
const idOf = (entry, at) => (entry.id && entry.id !== "None" ? `entry ${entry.id}` : `entry ${at + 1}`);
const whereOf = (entry) => entry.name.replace(/^.* \((.*)\)$/, "$1");

// Entries of one code object belong together.
const families = [...Map.groupBy ? Map.groupBy(DATA.entries.keys(), (at) => entryOf(at).name).values() : grouped()];
function grouped() {
  const found = new Map();
  DATA.entries.forEach((entry, at) => found.set(entry.name, [...(found.get(entry.name) || []), at]));
  return found.values();
}

// ---- theme ------------------------------------------------------------------------------------------------------------

const THEMES = ["auto", "light", "dark"];
let theme = "auto";
try {
  theme = localStorage.getItem("unified_guards.theme") || "auto";
} catch { /* a page that is opened as a file may have none */ }

function setTheme(next) {
  theme = next;
  if (next === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", next);
  $("theme").textContent = `Theme: ${next}`;
  try {
    localStorage.setItem("unified_guards.theme", next);
  } catch { /* as above */ }
}

// ---- entries ----------------------------------------------------------------------------------------------------------

// What all checks of an entry took together, as far as that is known: of one that was not measured, how many there were.
const isMeasured = DATA.entries.some((entry) => entry.times.in_place_ns);
const heatOf = (entry) => (isMeasured ? entry.times.in_place_ns || 0 : 1) * entry.counts[0];
const byHeat = [...DATA.entries.keys()].sort((a, b) => heatOf(entryOf(b)) - heatOf(entryOf(a)) || entryOf(b).counts[0] - entryOf(a).counts[0] || a - b);

function drawEntries() {
  const figureOf = (value, label) => h("span", { class: "figure" }, value, h("span", {}, label));
  const timeOf = (ns, label) => (isMeasured ? [figureOf(nsText(ns) || "–", label)] : []);
  const buttons = byHeat.map((at) => {
    const entry = entryOf(at);
    const figures = entry.torch !== null
      ? [figureOf("torch's", "guards")]
      : [
          figureOf(`${figure.format(entry.checks)} of ${figure.format(entry.lifted)}`, "guards checked"),
          figureOf(`${figure.format(entry.counts[0])} asked`, counted(entry.counts[2], "miss", "misses")),
          ...timeOf(entry.times.in_place_ns, "ours, in place"),
          ...timeOf(entry.times.torch_in_place_ns, "torch's, in place"),
        ];
    const what = h("span", { class: "what" }, h("b", {}, nameOf(entry)), ` ${idOf(entry, at)} `, h("span", { class: "muted small" }, whereOf(entry)));
    return h("button", { type: "button", class: "entry", "data-at": at, "aria-pressed": String(at === chosen), onclick: () => choose(at) }, what, ...figures);
  });
  const order = DATA.entries.length < 2 ? "" : isMeasured ? " First the one whose checks took longest, all together." : " First the one that was asked most often.";
  $("entries-about").textContent = `One for each compiled version of a function.${order} What follows is about the one that is chosen.`;
  $("entry-list").replaceChildren(h("div", { class: `entries${isMeasured ? "" : " untimed"}` }, buttons));
}

function choose(at) {
  chosen = at;
  for (const button of document.querySelectorAll(".entry")) button.setAttribute("aria-pressed", String(+button.dataset.at === at));
  scope = null;
  drawCost();
  drawMap();
  drawFilters();
  drawGuards();
  drawSimplified();
}

// Shows a section and its link, or neither.
function offer(id, is) {
  $(id).hidden = !is;
  document.querySelector(`nav a[href="#${id}"]`).hidden = !is;
}

const leftText = (entry) => `torch's own guards: ${entry.torch}.`;

// ---- cost -------------------------------------------------------------------------------------------------------------

const bar = (name, value, most, plain) => [
  h("span", { class: "name" }, name),
  h("span", { class: `bar${plain ? " plain" : ""}`, style: { width: `${Math.max(0.4, (100 * value) / most)}%` } }),
  h("span", { class: "value" }, nsText(value)),
];

function drawTimes(times) {
  const known = [
    ["ours, in place", times.in_place_ns],
    ["torch's tree, in place", times.torch_in_place_ns, true],
    ["ours, many in a row", times.check_ns],
    ["torch's tree, many in a row", times.torch_ns, true],
    ["ours, every guard evaluated, many in a row", times.exact_ns],
  ].filter(([, value]) => value);
  const most = Math.max(...known.map(([, value]) => value));
  return h("div", { class: "bars" }, known.flatMap(([name, value, plain]) => bar(name, value, most, plain)));
}

function timesText(times) {
  const turns = times.torch_in_place_ns
    ? "Torch's tree takes turns with ours there; it is called from Python, which adds about 0.1 µs."
    : "Torch's tree has not been measured there: that takes six checks.";
  return `In place is where the program makes a check (median of ${figure.format(times.timed || 0)}): its own work has pushed out of the cache what a check reads. Many in a row, all of that is in the cache. ${turns}`;
}

function drawParts(entry, parts, show) {
  const sum = parts.reduce((total, [, value]) => total + value, 0) || 1;
  const label = parts.map(([name, value]) => `${name}: ${show(value)}`).join("; ");
  return [
    h("div", { class: "stack", role: "img", "aria-label": label }, parts.filter(([, value]) => value > 0).map(([, value, c]) => h("i", { style: { width: `${(100 * value) / sum}%`, background: c } }))),
    h("div", { class: "legend" }, parts.filter(([, value]) => value > 0).map(([name, value, c]) => h("span", { style: { "--c": c } }, `${name}: ${show(value)}`))),
  ];
}

function checkParts(entry, rows) {
  const { check_ns: check, live_ns: live } = entry.times;
  const torch = rows.filter((row) => row.state === TORCH);
  const compared = [entry.facts ? counted(entry.facts, "fact") : "", entry.tensors ? counted(entry.tensors, "tensor") : ""].filter(Boolean);
  const rest = compared.length ? `comparing ${compared.join(" and ")}, and what every check has` : "what every check has";
  if (check && live !== null) {
    const calls = Math.min(live, torch.reduce((sum, row) => sum + row.ns, 0));
    const own = [["evaluating what is volatile", live - calls, colour(VOLATILE)], ["calling torch and Python", calls, colour(TORCH)]];
    return drawParts(entry, [[rest, Math.max(0, check - live), colour(WITNESS)], ...own], nsText);
  }
  const live_n = rows.reduce((sum, row) => sum + row.live, 0);
  const parts = [["facts compared", entry.facts, colour(WITNESS)], ["tensors compared", entry.tensors, "var(--accent)"], ["instructions evaluated", live_n, colour(VOLATILE)]];
  return drawParts(entry, parts, (value) => figure.format(value));
}

function drawTable(rows, by, title) {
  const measured = rows.some((row) => row.ns);
  const groups = new Map();
  for (const row of rows) {
    const found = groups.get(by(row)) || { n: 0, ns: 0, facts: 0 };
    found.n += 1;
    found.ns += row.ns || 0;
    found.facts += row.facts;
    groups.set(by(row), found);
  }
  if (groups.size < 2) return ""; // it would say what all of them come to
  const sorted = [...groups].sort(([, a], [, b]) => b.ns - a.ns || b.n - a.n);
  const lines = sorted.map(([name, { n, ns, facts }]) =>
    h("tr", {}, h("td", {}, name), h("td", { class: "n" }, figure.format(n)), h("td", { class: "n" }, figure.format(facts)), measured ? h("td", { class: "n" }, nsText(ns)) : ""),
  );
  const head = h("tr", {}, h("th", { scope: "col" }, title), h("th", { class: "n", scope: "col" }, "guards"), h("th", { class: "n", scope: "col" }, "facts"), measured ? h("th", { class: "n", scope: "col" }, "to evaluate") : "");
  return h("table", {}, h("thead", {}, head), h("tbody", {}, lines));
}

function drawCost() {
  const entry = entryOf();
  if (entry.torch !== null) return $("cost-body").replaceChildren(h("p", { class: "note" }, `${nameOf(entry)} has ${leftText(entry)}`));
  const rows = rowsOf(chosen).filter((row) => row.state !== REMOVED);
  const measured = Boolean(entry.times.check_ns);
  const told = measured
    ? [
        drawTimes(entry.times),
        h("p", { class: "muted small" }, timesText(entry.times)),
        h("h3", {}, "One check, many in a row, by part"),
      ]
    : [h("p", { class: "note" }, "No times: this entry was not measured, or no check of it has passed. Run the program with ", h("code", {}, "python -m unified_guards explain"), ", or set ", h("code", {}, "UNIFIED_GUARDS_PROFILE=1"), " before it compiles. Until then, what a check does is counted:")];
  const summed = h("p", { class: "muted small" }, measured
    ? "Each instruction was also measured alone. Those times are what a guard costs when it is evaluated, with the steps that first lead to its object; they do not add up to a check exactly. What is in the witness is evaluated only after one of its facts has changed."
    : "A guard that is in the witness costs the comparison of its facts; all others are evaluated.");
  const callbacks = entry.callbacks ? `, ${counted(entry.callbacks, "call")} of Python` : "";
  const size = h("p", { class: "muted small" }, `${counted(entry.instructions, "instruction")}${callbacks}, ${figure.format(entry.nbytes)} bytes, of which ${figure.format(entry.witness_nbytes)} to remember ${counted(entry.roots, "object")}.`);
  $("cost-body").replaceChildren(...told, ...checkParts(entry, rows), size, h("div", { class: "two" }, h("div", {}, drawTable(rows, (row) => row.kind, "kind")), h("div", {}, drawTable(rows, (row) => row.maker, "maker"), drawTable(rows, (row) => STATES[row.state][0], "state"))), summed);
  return undefined;
}

// ---- map --------------------------------------------------------------------------------------------------------------

const PATHS = {
  module: (row) => row.path,
  maker: (row) => [row.maker, row.kind, ...row.path],
  kind: (row) => [row.kind, ...row.path],
  line: (row) => (row.line ? [shortFile(row.line.file), `${row.line.line}: ${row.line.code}`, ...row.path] : ["no line", ...row.path]),
  state: (row) => [STATES[row.state][0], ...row.path],
};
const SIZES = {
  count: [() => 1, (node) => counted(node.all.length, "guard")],
  ns: [(row) => row.ns || 0, (node) => `${nsText(node.size)}, ${counted(node.all.length, "guard")}`],
  facts: [(row) => row.facts, (node) => `${counted(node.size, "fact")}, ${counted(node.all.length, "guard")}`],
};

const treemap = new Treemap($("treemap"), $("crumbs"), {
  open: (row) => openGuard(row),
  moved: (node) => {
    $("map-list").textContent = `List ${counted(node.all.length, "guard")}`;
    $("said").textContent = `${node.name}: ${node.children.length} fields`;
  },
  sizeText: (node) => SIZES[$("map-size").value][1](node),
});

function drawMap() {
  const rows = rowsOf(chosen).filter((row) => row.state !== REMOVED);
  offer("map", rows.length > 0);
  if (!rows.length) return;
  const measured = rows.some((row) => row.ns);
  for (const option of $("map-size").options) option.disabled = option.value === "ns" ? !measured : option.value === "facts" && !rows.some((row) => row.facts);
  if ($("map-size").selectedOptions[0].disabled) $("map-size").value = "count";
  treemap.show(treeOf(rows, PATHS[$("map-group").value], SIZES[$("map-size").value][0], nameOf(entryOf())));
  const states = STATES.flatMap(([name, why], state) => (rows.some((row) => row.state === state) ? [h("span", { style: { "--c": colour(state) }, title: why }, name)] : []));
  $("legend").replaceChildren(...states);
}

// ---- guards -----------------------------------------------------------------------------------------------------------

let scope = null; // {name, rows} of the map that the list is limited to
let found = [];
let shown = 0;
const CHUNK = 80;

function drawFilters() {
  const rows = rowsOf(chosen);
  const options = (select, all, values) => {
    const before = select.value;
    select.replaceChildren(h("option", { value: "" }, all), ...values.map(([value, name, n]) => h("option", { value }, `${name} (${figure.format(n)})`)));
    select.value = values.some(([value]) => value === before) ? before : "";
  };
  const states = STATES.map(([name], state) => [String(state), name, rows.filter((row) => row.state === state).length]);
  options($("by-state"), "all", states.filter(([, , n]) => n));
  const makers = [...new Set(rows.flatMap((row) => row.makers.map(({ name }) => name)))];
  options($("by-maker"), "all", makers.map((name) => [name, name, rows.filter((row) => row.makers.some((maker) => maker.name === name)).length]));
}

function matching() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [state, maker, order] = [$("by-state").value, $("by-maker").value, $("by-order").value];
  const rows = (scope ? scope.rows : rowsOf(chosen)).filter(
    (row) => (state === "" || row.state === +state) && (maker === "" || row.makers.some(({ name }) => name === maker)) && words.every((word) => row.words.includes(word)),
  );
  return order === "checked" ? rows : [...rows].sort((a, b) => (b[order] || 0) - (a[order] || 0));
}

function drawGuards() {
  found = matching();
  shown = 0;
  const all = rowsOf(chosen).length;
  const within = scope ? [` in ${scope.name} `, h("button", { type: "button", onclick: () => { scope = null; drawGuards(); } }, "all of the entry")] : [];
  $("count").replaceChildren(`${figure.format(found.length)} of ${counted(all, "guard")}`, ...within);
  const heads = h("div", { class: "heads", "aria-hidden": "true" }, h("span", {}, "guard"), h("span", { class: "facts" }, "facts"), h("span", {}, found.some((row) => row.ns) ? "to evaluate" : "instructions"));
  $("guard-list").replaceChildren(found.length ? heads : h("p", { class: "note" }, all ? "No guard is like that. Search with fewer words, or choose all states and makers." : "This entry has no guards of ours."));
  moreGuards();
}

function moreGuards() {
  const next = found.slice(shown, shown + CHUNK);
  shown += next.length;
  $("guard-list").append(...next.map(drawRow));
  const left = found.length - shown;
  $("more").replaceChildren(...(left ? [h("button", { type: "button", onclick: moreGuards }, `${figure.format(left)} more`)] : []));
}

function drawRow(row) {
  const line = row.line;
  const under = [h("span", { class: "state", style: { "--c": colour(row.state) } }, STATES[row.state][0]), ` · ${row.makers.map(({ name }) => name).filter((name, i, all) => all.indexOf(name) === i).join(", ") || "made here"}`, line ? ` · ${placeOf(line)}` : ""];
  const cost = row.state === REMOVED ? "" : row.ns !== null ? nsText(row.ns) : figure.format(row.instructions);
  const summary = h("summary", {}, h("span", { class: "text" }, row.brief), h("span", { class: "figure facts" }, row.facts ? figure.format(row.facts) : ""), h("span", { class: "figure" }, cost), h("span", { class: "under" }, under));
  const details = h("details", { class: "row" }, summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(drawBody(row));
  });
  return details;
}

function drawBody(row) {
  const [state, why] = STATES[row.state];
  const full = row.text === row.brief ? [] : [["in full", h("code", {}, row.text)]];
  const items = [...full, ["kind", row.kind], ["state", `${state}. ${why}`]];
  if (row.state !== REMOVED) {
    const steps = `${counted(row.instructions, "instruction")}, ${figure.format(row.live)} of them evaluated on every check; ${counted(row.facts, "fact")}`;
    items.push(["costs", row.ns === null ? steps : `${nsText(row.ns)} to evaluate. ${steps}`]);
  }
  if (row.rule >= 0) items.push(["rule", DATA.rules[row.rule]]);
  if (row.becomes >= 0) items.push(["became", h("code", {}, guardText(row.becomes))]);
  if (row.makers.length > 1) items.push(["merged", `${row.makers.length} makers asked for the same`]);
  return h("div", { class: "body" }, h("dl", {}, items.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])), distinct(row.makers).map(drawMaker));
}

const distinct = (makers) => [...new Map(makers.map((maker) => [JSON.stringify(maker), maker])).values()].slice(0, 8);

function drawMaker({ name, stack }) {
  if (!stack.length) return h("p", { class: "small muted" }, `Made by ${name}, for no line that torch knew.`);
  const innermost = stack[stack.length - 1];
  const outer = stack.slice(0, -1).reverse();
  const at = ({ file, line, name: of }) => `${file}:${line} in ${of}`;
  const calls = outer.length ? h("details", {}, h("summary", { class: "small muted" }, `called from ${counted(outer.length, "line")}`), outer.map((line) => h("p", { class: "line" }, `${at(line)}\n${line.code}`))) : "";
  return h("div", {}, h("p", { class: "small muted" }, `${name}, ${at(innermost)}`), h("pre", { class: "line" }, innermost.code || "(the source is not there)"), calls);
}

function openGuard(row) {
  $("search").value = "";
  $("by-state").value = $("by-maker").value = "";
  scope = { name: row.path.join(" / "), rows: [row] };
  drawGuards();
  const details = $("guard-list").querySelector("details");
  details.open = true;
  details.querySelector("summary").focus({ preventScroll: true });
  $("guards").scrollIntoView();
}

// ---- simplified -------------------------------------------------------------------------------------------------------

function drawSimplified() {
  const entry = entryOf();
  offer("simplified", entry.merged > 0 || entry.steps.length > 0 || Boolean(entry.stopped));
  const merged = entry.merged ? `${counted(entry.merged, "guard")} of ${figure.format(entry.lifted)} said the same as another and ${entry.merged === 1 ? "is" : "are"} one with it. ` : "";
  const steps = entry.steps.length ? `${counted(entry.steps.length, "step")} of simplification:` : "";
  const rules = new Map();
  for (const [guard, rule, becomes] of entry.steps) rules.set(rule, [...(rules.get(rule) || []), [guard, becomes]]);
  const lists = [...rules].sort(([, a], [, b]) => b.length - a.length).map(([rule, items]) => {
    const rewrote = items.filter(([, becomes]) => becomes >= 0).length;
    const counts = [items.length - rewrote ? `removed ${figure.format(items.length - rewrote)}` : "", rewrote ? `rewrote ${figure.format(rewrote)}` : ""].filter(Boolean).join(", ");
    const details = h("details", { class: "rule" }, h("summary", {}, h("b", {}, DATA.rules[rule]), ` ${counts}`));
    details.addEventListener("toggle", () => {
      if (details.children.length > 1) return;
      const list = h("ul");
      details.append(list);
      lazily(list, items, ([guard, becomes]) => h("li", {}, guardText(guard), becomes < 0 ? "" : h("span", { class: "muted" }, " became "), becomes < 0 ? "" : guardText(becomes)));
    });
    return details;
  });
  const stopped = entry.stopped ? [h("p", { class: "note" }, `Simplification stopped ${entry.stopped}. What it had not looked at is checked as it is.`)] : [];
  $("simplified-body").replaceChildren(h("p", { class: "muted" }, merged + steps), ...stopped, ...lists);
}

// ---- recompiles -------------------------------------------------------------------------------------------------------

const missesOf = (at) => entryOf(at).misses.map(([when, text, guard, advice]) => ({ at, when, text, guard, advice }));

function drawRecompiles() {
  const missed = DATA.entries.flatMap((_, at) => missesOf(at));
  const untimed = [...DATA.recompiles, ...missed.filter(({ when }) => when === null).map(({ text }) => text)];
  const events = [
    ...DATA.entries.flatMap((entry, at) => (entry.at ? [{ at, when: entry.at, made: true }] : [])),
    ...missed.filter(({ when }) => when !== null),
  ].sort((a, b) => a.when - b.when);
  const parts = [];
  offer("recompiles", missed.length > 0 || untimed.length > 0);
  if (events.length) parts.push(h("div", { id: "timeline" }), h("div", { class: "legend" }, h("span", { style: { "--c": "var(--accent)" } }, "compiled"), h("span", { style: { "--c": colour(VOLATILE) } }, "an entry did not fit: a guard failed")));
  if (missed.some(({ when }) => when !== null)) {
    const first = events[0].when;
    parts.push(lazily(h("ol", { class: "events" }), events.filter((event) => !event.made), (event) => drawEvent(event, first), 12));
  }
  if (untimed.length) parts.push(h("p", { class: "muted" }, "Without a time:"), lazily(h("ul", { class: "only" }), untimed, (text) => h("li", { style: { "white-space": "pre-wrap" } }, text)));
  $("recompiles-body").replaceChildren(...parts);
  if (events.length) new ResizeObserver(() => drawTimeline(events)).observe($("timeline"));
}

// Of each cause: what has changed, what to do, and torch's name for it.
const drawAdvice = (advice) =>
  advice.map(([name, ...lines]) => h("div", { class: "advice" }, h("b", {}, name), lines.map((line) => h("p", {}, line))));

function drawEvent({ at, when, made: isMade, text, advice }, first) {
  const entry = entryOf(at);
  const what = isMade
    ? h("span", {}, h("b", {}, nameOf(entry)), ` ${idOf(entry, at)} compiled`)
    : h("span", {}, `${nameOf(entry)} ${idOf(entry, at)} did not fit: `, h("code", {}, text), drawAdvice(advice));
  return h("li", {}, h("time", {}, `+${(when - first).toFixed(3)} s`), what);
}

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function drawTimeline(events) {
  const lanes = families.filter((family) => family.some((at) => events.some((event) => event.at === at))).slice(0, 24);
  const width = $("timeline").clientWidth;
  const [first, last] = [events[0].when, events[events.length - 1].when];
  const x = (when) => 10 + ((width - 20) * (when - first)) / Math.max(last - first, 1e-9);
  const drawn = lanes.flatMap((family, lane) => {
    const y = 34 + lane * 44;
    const marks = events.filter((event) => family.includes(event.at)).map((event) => {
      const said = svg("title", {}, event.made ? `${idOf(entryOf(event.at), event.at)} compiled` : event.text);
      return event.made ? svg("circle", { class: "made", cx: x(event.when), cy: y, r: 5 }, said) : svg("path", { class: "missed", d: `M${x(event.when)} ${y - 6}l6 6l-6 6l-6 -6z`, opacity: 0.9 }, said);
    });
    return [svg("text", { x: 4, y: y - 13 }, nameOf(entryOf(family[0]))), svg("line", { class: "lane", x1: 4, x2: width - 4, y1: y, y2: y }), ...marks];
  });
  const height = 34 + lanes.length * 44;
  const scale = [svg("text", { x: 4, y: height - 4 }, "0 s"), svg("text", { x: width - 4, y: height - 4, "text-anchor": "end" }, `+${(last - first).toFixed(2)} s`)];
  $("timeline").replaceChildren(svg("svg", { class: "timeline", height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${events.length} events in ${(last - first).toFixed(2)} seconds; listed below where a guard failed` }, ...drawn, ...scale));
}

// ---- graph breaks, and what is not compiled ----------------------------------------------------------------------------

function drawBreaks() {
  const broken = new Map(); // entries of one function that end alike, once
  DATA.entries.forEach((entry, at) => {
    const key = JSON.stringify([entry.name, entry.break]);
    if (entry.break) broken.set(key, [...(broken.get(key) || []), at]);
  });
  const noted = DATA.codes.filter(([, , , note]) => note);
  offer("breaks", broken.size + noted.length > 0);
  const items = [...noted.map(([, , , note]) => h("li", {}, note)), ...[...broken.values()].map(drawBreak)];
  $("breaks-body").replaceChildren(lazily(h("ul", { class: "breaks" }), items, (item) => item, 12));
}

function drawBreak(entries) {
  const entry = entryOf(entries[0]);
  const [where, reason, ...hints] = entry.break;
  const which = entries.length === 1 ? idOf(entry, entries[0]) : counted(entries.length, "entry", "entries");
  const said = hints.length ? h("details", {}, h("summary", { class: "small muted" }, `torch's ${hints.length === 1 ? "hint" : "hints"}`), hints.map((hint) => h("p", { class: "small" }, hint))) : "";
  return h("li", {}, h("b", {}, nameOf(entry)), ` ${which}: the graph ends at `, h("code", {}, where), `. ${reason}`, said);
}

// ---- side by side -----------------------------------------------------------------------------------------------------

function drawCompare() {
  const several = families.filter((family) => family.filter((at) => entryOf(at).torch === null).length > 1);
  offer("compare", several.length > 0);
  $("compare-body").replaceChildren(...several.map(drawFamily));
}

// Two that say the same in words are the same, but not where the words name an object.
const sameAs = (row) => (row.kind.startsWith("is") ? row.guard : row.text);

function drawFamily(family) {
  const entries = family.filter((at) => entryOf(at).torch === null);
  const checked = entries.map((at) => new Map(rowsOf(at).filter((row) => row.state !== REMOVED).map((row) => [sameAs(row), row.guard])));
  const common = [...checked[0].keys()].filter((same) => checked.every((guards) => guards.has(same)));
  const inAll = new Set(common);
  const columns = entries.map((at, i) => drawColumn(at, [...checked[i]].flatMap(([same, guard]) => (inAll.has(same) ? [] : [guard]))));
  return h("div", {}, h("h3", {}, nameOf(entryOf(family[0]))), h("p", { class: "muted small" }, `${counted(entries.length, "entry", "entries")}. ${counted(common.length, "guard")} in all of them.`), h("div", { class: "columns", tabindex: 0, role: "group", "aria-label": `Entries of ${nameOf(entryOf(family[0]))}` }, columns));
}

function drawColumn(at, only) {
  const entry = entryOf(at);
  const list = (guards) => lazily(h("ul", { class: "only" }), guards, (guard) => h("li", {}, guardText(guard)), 25);
  const facts = [`${counted(entry.checks, "guard")} checked`, `${figure.format(entry.counts[1])} hits, ${figure.format(entry.counts[2])} misses`, entry.times.in_place_ns ? `${nsText(entry.times.in_place_ns)} a check, in place` : ""];
  const telling = entry.telling.length ? [h("h4", {}, "asked first"), list(entry.telling)] : [];
  const misses = missesOf(at).length ? [h("h4", {}, "did not fit because of"), lazily(h("ul", { class: "only" }), missesOf(at), ({ text, advice }) => h("li", {}, text, drawAdvice(advice)))] : [];
  return h("div", {}, h("h3", {}, idOf(entry, at)), h("p", { class: "small muted" }, facts.filter(Boolean).join("; ")), ...telling, ...misses, h("h4", {}, `${counted(only.length, "guard")} that not all of them have`), list(only));
}

// ---- start ------------------------------------------------------------------------------------------------------------

function start() {
  setTheme(THEMES.includes(theme) ? theme : "auto");
  $("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]));
  $("about").textContent = `${DATA.versions}. Written ${DATA.made.replace("T", " ")}.`;
  if (!DATA.entries.length) {
    const notes = DATA.codes.map(([, , , note]) => note).filter(Boolean);
    const none = `${DATA.title} has no compiled code yet: call unified_guards.install(), compile it with torch.compile and call it once.`;
    document.querySelector("nav").hidden = true;
    document.querySelector("main").replaceChildren(...(notes.length ? notes : [none]).map((note) => h("p", { class: "note" }, note)));
    return;
  }
  for (const id of ["map-group", "map-size"]) $(id).addEventListener("change", drawMap);
  for (const id of ["by-state", "by-maker", "by-order"]) $(id).addEventListener("change", drawGuards);
  let waiting = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(drawGuards, 60);
  });
  $("map-list").addEventListener("click", () => {
    scope = treemap.trail.length > 1 ? { name: treemap.here.name, rows: treemap.here.all } : null;
    drawGuards();
    $("guards").scrollIntoView();
    $("search").focus({ preventScroll: true });
  });
  new IntersectionObserver((seen) => seen.some((each) => each.isIntersecting) && shown < found.length && moreGuards(), { rootMargin: "600px" }).observe($("more"));
  chosen = byHeat[0];
  drawEntries();
  choose(chosen);
  drawRecompiles();
  drawBreaks();
  drawCompare();
}

start();
