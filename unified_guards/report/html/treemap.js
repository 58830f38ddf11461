// A map of guards in which the size of a field is what its guards come to.

const MOST_CELLS = 120;
const DEEPEST = 3; // levels that are drawn inside a field

// Groups rows by their paths. A leaf has one row; a step that leads to one place only is joined with the next.
function treeOf(rows, pathOf, sizeOf, name) {
  const root = { name, children: new Map(), rows: [], size: 0 };
  for (const row of rows) {
    const size = sizeOf(row);
    let node = root;
    for (const step of pathOf(row)) {
      let next = node.children.get(step);
      if (!next) node.children.set(step, (next = { name: step, children: new Map(), rows: [], size: 0 }));
      node = next;
    }
    node.rows.push([row, size]);
  }
  return settled(root, null);
}

function settled(node, parent) {
  const groups = [...node.children.values()].map((child) => settled(child, null));
  const leaves = node.rows.map(([row, size]) => ({ name: row.text, row, size, all: [row], children: [] }));
  const children = [...groups, ...leaves].filter((child) => child.size > 0);
  if (children.length === 1 && parent === null && node.name !== null && !children[0].row) {
    return { ...children[0], name: `${node.name} / ${children[0].name}` };
  }
  if (children.length === 1 && children[0].row) return { ...children[0], name: node.name, inner: children[0].name };
  return made(node.name, children);
}

function made(name, children) {
  children.sort((a, b) => b.size - a.size);
  const kept = children.length > MOST_CELLS ? [...children.slice(0, MOST_CELLS - 1), made(`${children.length - MOST_CELLS + 1} smaller ones`, children.slice(MOST_CELLS - 1))] : children;
  return { name, children: kept, all: children.flatMap((child) => child.all), size: children.reduce((sum, child) => sum + child.size, 0) };
}

// Squarified (Bruls, Huizing, van Wijk): rows along the shorter side, for as long as that makes their fields squarer.
function squarify(nodes, x, y, width, height) {
  const placed = [];
  const total = nodes.reduce((sum, node) => sum + node.size, 0);
  if (!(total > 0) || width <= 0 || height <= 0) return placed;
  const scale = (width * height) / total;
  const worst = (row, sum, side) => {
    const [most, least] = [row[0].size * scale, row[row.length - 1].size * scale];
    return Math.max((side * side * most) / (sum * sum), (sum * sum) / (side * side * least));
  };
  let at = 0;
  while (at < nodes.length) {
    const side = Math.min(width, height);
    let [end, sum] = [at + 1, nodes[at].size * scale];
    while (end < nodes.length) {
      const next = sum + nodes[end].size * scale;
      if (worst(nodes.slice(at, end + 1), next, side) > worst(nodes.slice(at, end), sum, side)) break;
      sum = next;
      end += 1;
    }
    const thick = sum / side;
    let along = 0;
    for (const node of nodes.slice(at, end)) {
      const long = (node.size * scale) / thick;
      placed.push(width < height ? { node, x: x + along, y, w: long, h: thick } : { node, x, y: y + along, w: thick, h: long });
      along += long;
    }
    if (width < height) [y, height] = [y + thick, height - thick];
    else [x, width] = [x + thick, width - thick];
    at = end;
  }
  return placed;
}

const statesOf = (node) => {
  const found = STATES.map(() => 0);
  for (const row of node.all) found[row.state] += 1;
  return found;
};

class Treemap {
  // `open(row)` is called for a field with one guard, `moved(node)` when another one is shown.
  constructor(element, crumbs, { open, moved, sizeText }) {
    Object.assign(this, { element, crumbs, open, moved, sizeText });
    this.trail = [];
    element.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(element);
  }

  get here() {
    return this.trail[this.trail.length - 1];
  }

  show(root) {
    this.trail = [root];
    this.draw();
    this.moved(this.here);
  }

  enter(node, byKey) {
    if (node.row) return this.open(node.row);
    this.trail.push(node);
    this.redraw(byKey);
    return undefined;
  }

  leave(to, byKey) {
    if (this.trail.length <= 1) return;
    const from = this.trail[to + 1];
    this.trail.length = to + 1;
    this.redraw(byKey, from);
  }

  redraw(byKey, from) {
    this.draw();
    this.moved(this.here);
    if (byKey) (this.cells.find((cell) => cell.node === from) || this.cells[0])?.button.focus();
  }

  draw() {
    if (!this.here) return;
    this.drawCrumbs();
    const { clientWidth: width, clientHeight: height } = this.element;
    this.cells = squarify(this.here.children, 0, 0, width, height);
    this.cells.forEach((cell, at) => (cell.button = this.button(cell, at)));
    const nothing = h("p", { class: "muted", style: { padding: "1rem" } }, "No guard has a size by this measure.");
    this.element.replaceChildren(...(this.cells.length ? this.cells.map((cell) => cell.button) : [nothing]));
  }

  drawCrumbs() {
    this.crumbs.replaceChildren(
      ...this.trail.flatMap((node, at) => {
        const last = at === this.trail.length - 1;
        const step = last ? h("b", { "aria-current": "location" }, node.name) : h("button", { type: "button", onclick: () => this.leave(at, false) }, node.name);
        return at ? [h("span", { class: "muted", "aria-hidden": "true" }, "/"), step] : [step];
      }),
    );
  }

  button(cell, at) {
    const { node, x, y, w, h: height } = cell;
    const states = statesOf(node);
    const main = states.indexOf(Math.max(...states));
    const size = this.sizeText(node);
    const said = `${node.inner || node.name}, ${size}, ${states.flatMap((n, state) => (n ? [`${n} ${STATES[state][0]}`] : [])).join(", ")}`;
    const button = h("button", {
      type: "button", class: "cell", tabindex: at ? -1 : 0, "aria-label": said, title: said,
      style: { left: `${x}px`, top: `${y}px`, width: `${w}px`, height: `${height}px`, "--c": colour(main) },
      onclick: (event) => this.enter(node, event.detail === 0),
      onfocus: () => this.cells.forEach((other) => (other.button.tabIndex = other === cell ? 0 : -1)),
    });
    if (w > 34 && height > 20) button.append(h("span", { class: "name" }, node.name));
    if (w > 60 && height > 42) button.append(h("span", { class: "size" }, size));
    if (w > 50 && height > 80) button.append(...this.inside(node, w, height, 46, DEEPEST));
    if (height > 14) button.append(this.strip(states, node.all.length));
    return button;
  }

  // What a field holds, as far in as there is room to see it.
  inside(node, width, height, top, depth) {
    const fields = squarify(node.children, 4, top, width - 10, height - top - 6);
    return fields.filter(({ w, h: high }) => w > 6 && high > 6).map(({ node: child, x, y, w, h: high }) => {
      const states = statesOf(child);
      const named = w > 30 && high > 17;
      const style = { left: `${x}px`, top: `${y}px`, width: `${w - 2}px`, height: `${high - 2}px`, "--c": colour(states.indexOf(Math.max(...states))) };
      const deeper = depth > 0 && w > 26 && high > 26 ? this.inside(child, w - 2, high - 2, named ? 18 : 3, depth - 1) : [];
      return h("span", { class: "in", style }, named ? h("b", {}, child.name) : "", deeper);
    });
  }

  strip(states, all) {
    return h("span", { class: "strip" }, states.flatMap((n, state) => (n ? [h("i", { style: { width: `${(100 * n) / all}%`, background: colour(state) } })] : [])));
  }

  key(event) {
    const at = this.cells.findIndex((cell) => cell.button === document.activeElement);
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape" || event.key === "Backspace") {
      if (this.trail.length < 2) return;
      this.leave(this.trail.length - 2, true);
    } else if (event.key === "Home" || event.key === "End") {
      this.cells.at(event.key === "Home" ? 0 : -1)?.button.focus();
    } else if (at >= 0 && steps[event.key]) {
      this.next(this.cells[at], ...steps[event.key])?.button.focus();
    } else return;
    event.preventDefault();
  }

  // The nearest field whose near edge lies beyond this one's far edge.
  next(from, dx, dy) {
    const middle = ({ x, y, w, h: high }) => [x + w / 2, y + high / 2];
    const [fromX, fromY] = middle(from);
    let [best, least] = [null, Infinity];
    for (const cell of this.cells) {
      const gap = dx > 0 ? cell.x - from.x - from.w : dx < 0 ? from.x - cell.x - cell.w : dy > 0 ? cell.y - from.y - from.h : from.y - cell.y - cell.h;
      if (cell === from || gap < -1) continue;
      const [x, y] = middle(cell);
      const far = Math.abs(gap) + 2 * Math.abs(dx ? y - fromY : x - fromX) * 0.5;
      if (far < least) [best, least] = [cell, far];
    }
    return best;
  }
}
