// The viewer: what is shown (its state), the controls beside the stage, and the keys. Mouse and fingers are in gestures.js.

const WIPE_STEP = 0.02;
const ZOOM_STEP = 1.25;
const EVENTS = { BUTTON: "click", INPUT: "input", SELECT: "change" };
const FIT_MARGIN = 0.94;
const JUMP_ZOOM = 4;
const PAN_STEP = 0.08; // of what is visible
const LIMITS = { zoom: [1, 32], wipe: [0, 1], centre: [-2000, 4000], width: [1, 6000], difference: [1, 2000], disagreement: [1, 2000] };

function clamp(value, [low, high]) {
  return Math.min(Math.max(value, low), high);
}

// 1, 2, 5, 10, ...: the next one up or down.
function nextRound(value, up) {
  const steps = [];
  for (let power = 1; power <= 1000; power *= 10) steps.push(power, 2 * power, 5 * power);
  return up ? steps.find((step) => step > value) ?? value : steps.reverse().find((step) => step < value) ?? value;
}

// With a finger the wipe is lit at first, with a mouse the window.
const TOUCH = matchMedia("(pointer: coarse)").matches;
const SCALES = ["difference", "disagreement"];
const LEAST_STAGE = 250; // CSS pixels

class Viewer {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.store = new SliceStore(data.slices);
    this.stage = new Stage(root.querySelector("#stage"), data.views, data.colours);
    this.status = root.querySelector("#viewer-status");
    this.readout = root.querySelector("#readout");
    this.planes = null; // of the slice that is shown
    this.loaded = -1;
    const preset = data.presets.find(({ name }) => name === data.window);
    this.state = {
      slice: 0, left: 0, right: 0, layout: "wipe", wipe: 0.5, centre: preset.centre, width: preset.width, smooth: true,
      zoom: 1, x: 0, y: 0, mark: -1, drag: TOUCH ? "wipe" : "window", ...data.scales, ...firstPair(data.views, data.first),
    };
    this.controls = this.connect();
    this.fitScreen();
    this.stage.arrange(this.state, this.slice);
    this.home = 1; // the zoom at which the body fits
    this.fit();
    this.root.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.resized()).observe(this.stage.root);
    addEventListener("resize", () => this.fitScreen());
    this.set({});
    this.fitScreen(); // now that the label of the slice has its text
  }

  // The images take the height that the answer above and the controls beneath leave of the first screen.
  fitScreen() {
    const { root } = this.stage;
    const main = root.parentElement;
    const beneath = [...main.children].filter((one) => one !== root && one.offsetHeight && !one.matches(".spoken, .fine"))
      .reduce((sum, one) => sum + one.offsetHeight + 4, 0);
    const left = innerHeight - (root.getBoundingClientRect().top + scrollY) - beneath - 8;
    main.style.setProperty("--stage-height", `${Math.round(clamp(left, [LEAST_STAGE, Math.max(LEAST_STAGE, root.clientWidth)]))}px`);
  }

  get slice() {
    return this.data.slices[this.state.slice];
  }

  // Show the body as large as a pane allows.
  fit() {
    const [x0, y0, x1, y1] = this.slice.body;
    const { columns, rows } = this.slice;
    const place = this.stage.panes[0].geometry({ zoom: 1 }, this.slice);
    const fits = Math.min(place.width / ((x1 - x0) * place.x), place.height / ((y1 - y0) * place.y));
    this.home = clamp(fits * FIT_MARGIN || 1, [1, Math.max(columns, rows)]);
    Object.assign(this.state, { zoom: this.home, x: (x0 + x1) / 2, y: (y0 + y1) / 2 });
    this.stayInside();
  }

  // No pane looks beyond the slice.
  stayInside() {
    const { state } = this;
    const { columns, rows } = this.slice;
    state.x = clamp(state.x, [columns / 2 / state.zoom, columns - columns / 2 / state.zoom]);
    state.y = clamp(state.y, [rows / 2 / state.zoom, rows - rows / 2 / state.zoom]);
  }

  // A pane of another shape shows the whole body again, unless someone looks at a part of it.
  resized() {
    this.stage.spreadPanes();
    if (!this.zoomedIn) {
      this.fit();
      this.showControls();
    }
    this.redraw();
  }

  // What dragging does: what is lit. Without two images in one pane there is nothing to wipe.
  get dragging() {
    const { drag, layout } = this.state;
    if (drag !== "wipe" || layout === "wipe") return drag;
    return TOUCH ? "pan" : "window";
  }

  get zoomedIn() {
    return this.state.zoom > this.home * 1.02;
  }

  // The one way to change what is shown.
  set(changes) {
    const before = this.slice;
    if (changes.slice !== undefined && changes.mark === undefined && changes.slice !== this.state.slice) this.state.mark = -1;
    const refit = changes.layout !== undefined && changes.layout !== this.state.layout && !this.zoomedIn;
    Object.assign(this.state, changes);
    const { state, data } = this;
    if (SCALES.some((name) => changes[name] !== undefined)) this.ownScales = true; // of the person: no slice changes them
    for (const [name, limits] of Object.entries(LIMITS)) state[name] = clamp(state[name], limits);
    state.slice = clamp(state.slice, [0, data.slices.length - 1]);
    state.left = (state.left + data.views.length) % data.views.length;
    state.right = (state.right + data.views.length) % data.views.length;
    if (!this.ownScales) Object.assign(state, this.slice.scales);
    const { columns, rows, body } = this.slice;
    const other = columns !== before.columns || rows !== before.rows;
    if (refit) this.stage.arrange(state, this.slice); // panes of another size
    if (refit || other || (String(body) !== String(before.body) && !this.zoomedIn)) this.fit();
    this.stayInside();
    this.showControls();
    this.redraw();
  }

  redraw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(async () => {
      this.frame = 0;
      await this.draw();
    });
  }

  async draw() {
    const wanted = this.state.slice;
    if (this.loaded !== wanted) {
      let planes;
      try {
        planes = await this.store.load(wanted);
      } catch (error) {
        this.fail(`This slice cannot be unpacked: ${error.message}`);
        return;
      }
      if (wanted !== this.state.slice) return; // another one was asked for meanwhile, and will be drawn
      [this.planes, this.loaded] = [planes, wanted];
    }
    this.stage.draw(this.state, this.slice, this.planes);
    this.stage.root.dataset.drawn = String(wanted);
    this.read();
  }

  fail(message) {
    this.status.textContent = message;
    this.status.classList.add("problem");
  }

  // Controls by the name of what they change. Each is an element of the page, so that it works without a mouse.
  connect() {
    const find = (name) => [...this.root.querySelectorAll(`[data-set="${name}"]`)];
    const controls = {};
    for (const name of ["slice", "wipe", "centre", "width", "zoom", "difference", "disagreement", "left", "right", "layout", "drag", "smooth", "mark"]) {
      controls[name] = find(name);
      for (const control of controls[name]) {
        control.addEventListener(EVENTS[control.tagName], () => this.take(name, control));
      }
    }
    for (const select of [...controls.left, ...controls.right]) {
      select.replaceChildren(...this.data.views.map(({ title }, number) => new Option(title, number)));
    }
    this.marks = this.data.slices.flatMap(({ marks }, slice) => marks.map((mark, number) => ({ ...mark, slice, number })));
    for (const select of controls.mark) {
      const options = this.marks.map(({ label, slice }, number) => new Option(`${number + 1}: ${label}, slice ${slice + 1}`, number));
      select.replaceChildren(new Option(`one of ${this.marks.length} \u2026`, -1), ...options);
    }
    for (const [action, run] of Object.entries(this.actions())) {
      for (const button of this.root.querySelectorAll(`[data-do="${action}"]`)) button.addEventListener("click", run);
    }
    this.presetButtons = [...this.root.querySelectorAll("[data-preset]")];
    this.presetButtons.forEach((button, number) => button.addEventListener("click", () => this.preset(number)));
    return controls;
  }

  actions() {
    return {
      swap: () => this.set({ left: this.state.right, right: this.state.left }),
      fit: () => { this.fit(); this.set({}); },
      previous: () => this.set({ slice: this.state.slice - 1 }),
      next: () => this.set({ slice: this.state.slice + 1 }),
    };
  }

  take(name, control) {
    if (name === "mark") this.jump(Number(control.value));
    else if (control.tagName === "BUTTON") this.set({ [name]: control.value });
    else if (control.type === "checkbox") this.set({ [name]: control.checked });
    else if (control.value !== "" && Number.isFinite(Number(control.value))) this.set({ [name]: Number(control.value) });
  }

  // Show a mark: its slice, large, in the middle.
  jump(number) {
    const mark = this.marks[number];
    if (!mark) {
      this.set({ mark: -1 });
      return;
    }
    this.set({ slice: mark.slice, mark: mark.number });
    this.set({ zoom: this.home * JUMP_ZOOM, x: mark.column, y: mark.row });
  }

  preset(number) {
    const preset = this.data.presets[number];
    if (preset) this.set({ centre: preset.centre, width: preset.width });
  }

  showControls() {
    const { state, data } = this;
    for (const [name, controls] of Object.entries(this.controls)) {
      for (const control of controls) {
        if (control.tagName === "BUTTON") {
          control.setAttribute("aria-pressed", String(control.value === (name === "drag" ? this.dragging : state[name])));
          if (name === "drag" && control.value === "wipe") control.disabled = state.layout !== "wipe";
        } else if (name === "mark") control.value = String(this.marks.findIndex((one) => one.slice === state.slice && one.number === state.mark));
        else if (control.type === "checkbox") control.checked = state[name];
        else if (control.type !== "number" || control !== document.activeElement) control.value = String(round(state[name]));
        if (control.type === "range") control.setAttribute("aria-valuetext", this.spoken(name));
      }
    }
    this.presetButtons.forEach((button, number) => {
      const { centre, width } = data.presets[number];
      button.setAttribute("aria-pressed", String(centre === state.centre && width === state.width));
    });
    for (const output of this.root.querySelectorAll("[data-show]")) output.textContent = this.spoken(output.dataset.show);
    for (const bar of this.root.querySelectorAll("[data-bar]")) this.showBar(bar);
    this.root.dataset.layout = state.layout;
    this.stage.root.dataset.drag = this.dragging;
    this.stage.root.classList.toggle("zoomed", this.zoomedIn);
    const [left, right] = [state.left, state.right].map((number) => data.views[number].title);
    const said = `${this.spoken("slice")}; ${left} left, ${right} right; window ${round(state.centre)}/${round(state.width)} HU`;
    if (!this.status.classList.contains("problem")) this.status.textContent = said;
  }

  spoken(name) {
    const { state, data } = this;
    const texts = {
      slice: () => `Image ${state.slice + 1} of ${data.slices.length}: ${this.slice.label}${this.slice.note ? ` (${this.slice.note})` : ""}`,
      patient: () => this.slice.patient,
      wipe: () => `${Math.round(100 * state.wipe)} %`,
      zoom: () => `${Math.round(100 * state.zoom)} %`,
      difference: () => `\u00b1${round(state.difference)} HU`,
      disagreement: () => `0 to ${round(state.disagreement)} HU`,
    };
    return (texts[name] ?? (() => `${round(state[name])} HU`))();
  }

  showBar(bar) {
    const kind = bar.dataset.bar;
    const table = this.data.colours[kind];
    const stops = [0, 32, 64, 96, 127, 160, 192, 224, 255].map((place) => `#${table.substr(6 * place, 6)}`);
    bar.querySelector(".bar-colours").style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
    const [low, high] = rangeOfKind(kind, this.state);
    bar.querySelector(".bar-low").textContent = signed(round(low));
    bar.querySelector(".bar-high").textContent = `${signed(round(high))} HU`;
  }

  // HU of the views of a pane at a place of the slice; by itself, what is there now where the pointer last was.
  read(pane = this.pointed?.pane, column = this.pointed?.column, row = this.pointed?.row) {
    if (!pane) return;
    this.pointed = this.stage.panes.includes(pane) ? { pane, column, row } : null;
    const [x, y] = [Math.floor(column), Math.floor(row)];
    const { columns, rows } = this.slice;
    if (!this.planes || x < 0 || y < 0 || x >= columns || y >= rows) {
      this.readout.textContent = "";
      return;
    }
    const found = pane.numbers.map((number) => {
      const { values } = this.stage.layers.get(number) ?? {};
      const value = values?.[y * columns + x];
      const text = value === undefined ? "none" : Number.isFinite(value) ? `${signed(round(value))} HU` : "not finite";
      return `${this.data.views[number].title}: ${text}`;
    });
    this.readout.textContent = `column ${x}, row ${y}   ${found.join("   ")}`;
  }

  zoomAt(factor, column = this.state.x, row = this.state.y) {
    const { state } = this;
    const zoom = clamp(state.zoom * factor, LIMITS.zoom);
    const share = state.zoom / zoom;
    this.set({ zoom, x: column + (state.x - column) * share, y: row + (state.y - row) * share });
  }

  pan(across, down) {
    const { columns, rows } = this.slice;
    const { x, y, zoom } = this.state;
    this.set({ x: x + (across * columns) / zoom, y: y + (down * rows) / zoom });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    if (event.target.matches("button") && [" ", "Enter"].includes(event.key)) return;
    const run = this.keys(event.shiftKey)[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!run) return;
    event.preventDefault();
    run();
  }

  keys(shift) {
    const { state } = this;
    const move = (name, step) => () => this.set({ [name]: state[name] + step });
    const turn = (name) => move(name, shift ? -1 : 1);
    const step = Math.max(1, Math.round(state.width / 40));
    const layouts = ["wipe", "side", "all"];
    const presets = this.data.presets.map((_, number) => [String(number + 1), () => this.preset(number)]);
    return {
      ArrowUp: shift ? move("centre", step) : move("slice", -1),
      ArrowDown: shift ? move("centre", -step) : move("slice", 1),
      ArrowLeft: shift ? move("width", -step) : move("wipe", -WIPE_STEP),
      ArrowRight: shift ? move("width", step) : move("wipe", WIPE_STEP),
      PageUp: move("slice", -1),
      PageDown: move("slice", 1),
      Home: () => this.set({ wipe: 0 }),
      End: () => this.set({ wipe: 1 }),
      "+": () => this.zoomAt(ZOOM_STEP),
      "=": () => this.zoomAt(ZOOM_STEP),
      "-": () => this.zoomAt(1 / ZOOM_STEP),
      0: this.actions().fit,
      w: () => this.pan(0, -PAN_STEP),
      s: () => this.pan(0, PAN_STEP),
      a: () => this.pan(-PAN_STEP, 0),
      d: () => this.pan(PAN_STEP, 0),
      q: turn("left"),
      e: turn("right"),
      x: this.actions().swap,
      " ": this.actions().swap,
      l: () => this.set({ layout: layouts[(layouts.indexOf(state.layout) + 1) % layouts.length] }),
      i: () => this.set({ smooth: !state.smooth }),
      m: () => this.jump((this.marks.findIndex((one) => one.slice === state.slice && one.number === state.mark) + 1) % Math.max(1, this.marks.length)),
      ",": () => this.set({ difference: nextRound(state.difference, false), disagreement: nextRound(state.disagreement, false) }),
      ".": () => this.set({ difference: nextRound(state.difference, true), disagreement: nextRound(state.disagreement, true) }),
      ...Object.fromEntries(presets),
    };
  }
}

// Input beside the result that the verdict is about, or the first one, or whatever there is.
function firstPair(views, first) {
  const images = views.flatMap(({ kind, method }, number) => (kind === "image" ? [{ method, number }] : []));
  const results = images.filter(({ method }) => method !== "input" && method !== "reference");
  const candidate = results.find(({ method }) => method === first) ?? results[0] ?? images[0];
  const other = images.find(({ method }) => method === "input") ?? images[0];
  return { left: other.number, right: candidate.number };
}

function round(value) {
  return Math.round(value * 100) / 100;
}

function signed(value) {
  return String(value).replace("-", "\u2212");
}
