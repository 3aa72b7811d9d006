// The stage: one pane or several, all showing the same place of the slice at the same magnification. It draws what the
// viewer's state says and turns places on the screen into places of the slice; it never changes the state.

const SIDES = ["left", "top", "right", "bottom"];
const HANDLE_HALF = 34; // CSS pixels, half of what the wipe's handle is wide
const RING = 1.8; // diameters of what it is around
const PANE = { least: 170, usual: 250 }; // CSS pixels across of a pane in the layout "all": on a phone, else
const MOST_SMOOTHED = 8; // device pixels a slice pixel; beyond, pixels are shown as they are

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

class Stage {
  constructor(root, views, colours) {
    this.root = root;
    this.views = views;
    this.tables = Object.fromEntries(Object.entries(colours).map(([kind, hex]) => [kind, colourTable(hex)]));
    this.panes = [];
    this.shown = ""; // which panes there are
    this.layers = new Map(); // of each view: its coloured image and what that was made of
  }

  // Which views a layout shows, pane by pane; two in one pane are wiped.
  plan({ layout, left, right }, slice) {
    if (layout === "wipe") return [[left, right]];
    if (layout === "side") return [[left], [right]];
    return this.views.map((_, number) => [number])
      .filter(([number]) => this.views[number].terms.every(([name]) => name in slice.planes));
  }

  arrange(state, slice) {
    const plan = this.plan(state, slice);
    const shown = JSON.stringify([state.layout, plan]);
    if (shown === this.shown) return;
    this.shown = shown;
    this.root.dataset.layout = state.layout;
    this.panes = plan.map((numbers) => new Pane(numbers, this.views));
    this.root.replaceChildren(...this.panes.map((pane) => pane.root));
    this.spreadPanes();
  }

  // In the layout "all" as many panes across as leave the fewest places empty in the last row.
  spreadPanes() {
    this.root.style.setProperty("--across", panesAcross(this.panes.length, this.root.clientWidth));
  }

  draw(state, slice, planes) {
    this.arrange(state, slice);
    for (const pane of this.panes) {
      pane.draw(state, slice, pane.numbers.map((number) => this.layer(number, state, slice, planes)));
    }
  }

  // The coloured image of a view as a canvas of the slice's size, made anew only when something about it changed.
  layer(number, state, slice, planes) {
    const view = this.views[number];
    const range = rangeOfKind(view.kind, state);
    const known = this.layers.get(number);
    if (known && known.planes === planes && known.low === range[0] && known.high === range[1]) return known;
    const same = known && known.planes === planes;
    const values = same ? known.values : viewValues(view, planes);
    const canvas = same ? known.canvas : document.createElement("canvas");
    if (values) {
      if (!same) [canvas.width, canvas.height] = [slice.columns, slice.rows];
      const image = colourImage(values, slice.columns, slice.rows, range, this.tables[view.kind]);
      canvas.getContext("2d").putImageData(image, 0, 0);
    }
    const made = { planes, values, canvas, low: range[0], high: range[1] };
    this.layers.set(number, made);
    return made;
  }

  paneAt(target) {
    return this.panes.find((pane) => pane.root.contains(target));
  }
}

class Pane {
  constructor(numbers, views) {
    this.numbers = numbers;
    this.root = element("figure", "pane");
    this.canvas = element("canvas");
    this.canvas.setAttribute("role", "img");
    this.labels = numbers.map((number, place) => {
      const title = views[number].title.replaceAll("_", "_\u200b"); // long names of files break there
      const label = element("figcaption", place ? "pane-label right" : "pane-label", title);
      label.append(element("span", "pane-figure"));
      return label;
    });
    this.line = element("div", "wipe-line");
    this.handle = element("div", "wipe-handle", "\u25c2 wipe \u25b8");
    this.sides = SIDES.map((side) => element("span", `side ${side}`));
    this.foot = element("p", "pane-foot");
    this.ring = element("div", "ring");
    this.ruler = element("div", "ruler");
    this.ruler.append(element("span"));
    this.cross = element("div", "cross");
    this.cross.hidden = true;
    this.missing = element("p", "pane-missing", "not available for this slice");
    const extras = numbers.length === 2 ? [this.line, this.handle] : [this.cross];
    this.root.append(this.canvas, ...this.labels, ...this.sides, this.ring, ...extras, this.ruler, this.foot, this.missing);
    this.titles = numbers.map((number) => views[number].title);
    this.kinds = numbers.map((number) => views[number].kind);
    this.methods = numbers.map((number) => views[number].method);
  }

  // Device pixels a slice pixel, and the middle of the pane; pixels that are not square are shown as they are in the body.
  geometry(state, slice) {
    const box = this.root.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
    const [across, down] = slice.spacing;
    const fit = Math.min(width / (slice.columns * across), height / (slice.rows * down));
    const scale = fit * state.zoom;
    return { box, ratio, width, height, x: scale * across, y: scale * down, perMm: scale / ratio };
  }

  draw(state, slice, layers) {
    const place = this.geometry(state, slice);
    if (!place.width || !place.height) return;
    this.root.style.setProperty("--shape", place.width / place.height); // paper keeps it: nothing is drawn anew there
    if (this.canvas.width !== place.width) this.canvas.width = place.width;
    if (this.canvas.height !== place.height) this.canvas.height = place.height;
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, place.width, place.height);
    const edge = Math.round(state.wipe * place.width);
    const clips = layers.length === 2 ? [[0, edge], [edge, place.width]] : [[0, place.width]];
    layers.forEach((layer, number) => {
      const [from, to] = clips[number];
      if (layer.values && to > from) this.drawLayer(context, layer.canvas, place, state, [from, to]);
    });
    this.annotate(state, slice, layers, place);
  }

  drawLayer(context, canvas, place, state, [from, to]) {
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, place.height);
    context.clip();
    context.imageSmoothingEnabled = state.smooth && place.x < MOST_SMOOTHED;
    context.imageSmoothingQuality = "high";
    const left = place.width / 2 - state.x * place.x;
    const top = place.height / 2 - state.y * place.y;
    context.setTransform(place.x, 0, 0, place.y, left, top);
    context.drawImage(canvas, 0, 0);
    context.restore();
  }

  annotate(state, slice, layers, place) {
    this.line.style.left = `${100 * state.wipe}%`;
    this.handle.style.left = `clamp(${HANDLE_HALF}px, ${100 * state.wipe}%, calc(100% - ${HANDLE_HALF}px))`; // never beyond the image
    this.missing.hidden = layers.every((layer) => layer.values);
    this.labels.forEach((label, number) => {
      label.lastChild.textContent = this.kinds[number] === "image"
        ? slice.figures[this.methods[number]] ?? "" : rangeText(this.kinds[number], state);
    });
    this.sides.forEach((side, number) => { side.textContent = slice.sides[number]; });
    const [across, down] = slice.spacing.map((size) => size.toFixed(2));
    const shown = this.kinds.includes("image") ? [`window ${windowText(state)}`] : [];
    this.foot.textContent = [...shown, `pixel ${across} \u00d7 ${down} mm`, ...(slice.position ? [slice.position] : [])].join(" \u00b7 ");
    this.encircle(slice.marks[state.mark], state, slice, place);
    const length = rulerLength(place.box.width / place.perMm / 3);
    this.ruler.style.width = `${(100 * length * place.perMm) / place.box.width}%`;
    this.ruler.firstChild.textContent = length >= 10 ? `${length / 10} cm` : `${length} mm`;
    this.canvas.setAttribute("aria-label", `${this.titles.join(" beside ")}, ${slice.label}`);
  }

  // A ring around the mark that was jumped to.
  encircle(mark, state, slice, place) {
    this.ring.hidden = !mark;
    if (!mark) return;
    const size = (RING * mark.diameter * place.perMm);
    const x = (place.width / 2 + (mark.column - state.x) * place.x) / place.ratio;
    const y = (place.height / 2 + (mark.row - state.y) * place.y) / place.ratio;
    Object.assign(this.ring.style, { width: `${size}px`, height: `${size}px`, left: `${x - size / 2}px`, top: `${y - size / 2}px` });
  }

  // Column and row of the slice under a place on the screen; fractions of pixels, the middle of the first is 0.5.
  pixelAt(clientX, clientY, state, slice) {
    const place = this.geometry(state, slice);
    const x = (clientX - place.box.left) * place.ratio - place.width / 2;
    const y = (clientY - place.box.top) * place.ratio - place.height / 2;
    return [state.x + x / place.x, state.y + y / place.y];
  }

  // Show the same place of the slice in a pane that the pointer is not in.
  point(column, row, state, slice, visible) {
    const place = this.geometry(state, slice);
    const x = (place.width / 2 + (column - state.x) * place.x) / place.ratio;
    const y = (place.height / 2 + (row - state.y) * place.y) / place.ratio;
    this.cross.hidden = !visible || x < 0 || y < 0 || x > place.box.width || y > place.box.height;
    this.cross.style.transform = `translate(${x}px, ${y}px)`;
  }
}

// The largest of 1, 2, 5, 10, ... mm that is not longer than that.
function rulerLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].map((factor) => factor * power).find((length) => length <= most) ?? power;
}

// How many of so many panes stand side by side: the number, of those that fit, that leaves the fewest places empty.
function panesAcross(count, width) {
  const most = Math.max(1, Math.min(count, Math.floor(width / (width < 600 ? PANE.least : PANE.usual))));
  const least = Math.ceil(most / 2);
  let best = most;
  for (let across = most; across >= least; across -= 1) {
    const empty = (number) => Math.ceil(count / number) * number - count;
    if (empty(across) < empty(best)) best = across;
  }
  return best;
}

function windowText({ centre, width }) {
  return `${signed(round(centre))}/${round(width)} HU`;
}

function rangeText(kind, state) {
  const [low, high] = rangeOfKind(kind, state);
  return low === -high ? `\u00b1${round(high)} HU` : `${signed(round(low))} to ${signed(round(high))} HU`;
}
