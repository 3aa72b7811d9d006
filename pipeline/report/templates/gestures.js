// Mouse, pen and fingers on the stage: dragging (wipe line, window, pan), wheel, pinch, double click.

const NEAR_LINE = 10; // CSS pixels from the wipe line within which a mouse takes hold of it
const WHEEL_STEP = 60; // of deltaY for one slice
const CLICK_MOVES = 4; // CSS pixels a click may move

function connectGestures(viewer) {
  const stage = viewer.stage.root;
  const fingers = new Map(); // pointers that are down, by id: where they are
  let drag = null;
  let wheel = 0;

  const what = (event, pane) => {
    const { state, dragging } = viewer;
    const box = pane.root.getBoundingClientRect();
    const fromLine = Math.abs(event.clientX - box.left - state.wipe * box.width);
    const held = event.target === pane.handle || (event.pointerType !== "touch" && fromLine <= NEAR_LINE);
    if (pane.numbers.length === 2 && event.button === 0 && held) return "wipe";
    if (event.button === 1 || event.shiftKey) return "pan";
    if (event.button === 2) return dragging === "window" ? "pan" : "window";
    return dragging; // what is lit, for a finger as for a mouse
  };

  stage.addEventListener("pointerdown", (event) => {
    const pane = viewer.stage.paneAt(event.target);
    if (!pane) return;
    stage.focus({ preventScroll: true });
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    drag = { kind: fingers.size > 1 ? "pinch" : what(event, pane), pane, from: { ...viewer.state }, start: [event.clientX, event.clientY], moved: 0 };
    if (drag.kind === "pinch") drag.spread = spread(fingers);
  });

  stage.addEventListener("pointermove", (event) => {
    const pane = viewer.stage.paneAt(event.target) ?? drag?.pane;
    if (!drag) {
      if (pane) hover(viewer, pane, event);
      return;
    }
    if (!fingers.has(event.pointerId)) return;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    const [across, down] = [event.clientX - drag.start[0], event.clientY - drag.start[1]];
    drag.moved = Math.max(drag.moved, Math.hypot(across, down));
    moves[drag.kind]?.(event, across, down);
  });

  const moves = {
    wipe: (event) => {
      const box = drag.pane.root.getBoundingClientRect();
      if (drag.pane.numbers.length === 2) viewer.set({ wipe: (event.clientX - box.left) / box.width });
    },
    // As in reading rooms: to the right wider, down brighter. A stage's width is twice the window it began with.
    window: (_event, across, down) => {
      const box = drag.pane.root.getBoundingClientRect();
      const step = Math.max(drag.from.width, 40) * 2;
      viewer.set({
        width: Math.round(drag.from.width + (across / box.width) * step),
        centre: Math.round(drag.from.centre - (down / box.height) * step),
      });
    },
    pan: (_event, across, down) => {
      const place = drag.pane.geometry(viewer.state, viewer.slice);
      viewer.set({ x: drag.from.x - (across * place.ratio) / place.x, y: drag.from.y - (down * place.ratio) / place.y });
    },
    pinch: () => {
      const now = spread(fingers);
      const [column, row] = drag.pane.pixelAt(...drag.spread.middle, drag.from, viewer.slice);
      const place = drag.pane.geometry(drag.from, viewer.slice);
      const zoom = clamp((drag.from.zoom * now.distance) / drag.spread.distance, LIMITS.zoom);
      const share = drag.from.zoom / zoom;
      viewer.set({
        zoom,
        x: column + (drag.from.x - column) * share - ((now.middle[0] - drag.spread.middle[0]) * place.ratio * share) / place.x,
        y: row + (drag.from.y - row) * share - ((now.middle[1] - drag.spread.middle[1]) * place.ratio * share) / place.y,
      });
    },
  };

  const release = (event) => {
    fingers.delete(event.pointerId);
    if (drag && event.type === "pointerup" && drag.moved < CLICK_MOVES && viewer.state.layout === "all") {
      viewer.set({ layout: "wipe", right: drag.pane.numbers[0], wipe: 0.5 }); // a closer look at this pane
    }
    if (!fingers.size) drag = null;
  };
  stage.addEventListener("pointerup", release);
  stage.addEventListener("pointercancel", release);
  stage.addEventListener("pointerleave", () => hover(viewer, null, null));
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  stage.addEventListener("dblclick", () => viewer.actions().fit());

  // The page scrolls as ever until the stage has the focus.
  stage.addEventListener("wheel", (event) => {
    const pane = viewer.stage.paneAt(event.target);
    if (!pane || (!event.ctrlKey && document.activeElement !== stage)) return;
    event.preventDefault();
    if (event.ctrlKey) {
      viewer.zoomAt(2 ** (-event.deltaY / 200), ...pane.pixelAt(event.clientX, event.clientY, viewer.state, viewer.slice));
      return;
    }
    wheel += event.deltaMode === WheelEvent.DOM_DELTA_LINE ? event.deltaY * 20 : event.deltaY;
    const steps = Math.trunc(wheel / WHEEL_STEP);
    wheel -= steps * WHEEL_STEP;
    if (steps) viewer.set({ slice: viewer.state.slice + Math.sign(steps) });
  }, { passive: false });
}

function hover(viewer, pane, event) {
  const { state, slice } = viewer;
  const place = pane ? pane.pixelAt(event.clientX, event.clientY, state, slice) : [-1, -1];
  for (const other of viewer.stage.panes) other.point(...place, state, slice, pane !== null && other !== pane);
  if (pane) viewer.read(pane, ...place);
  else [viewer.pointed, viewer.readout.textContent] = [null, ""];
}

// Distance and middle of the first two pointers.
function spread(fingers) {
  const [[ax, ay], [bx, by]] = [...fingers.values()];
  return { distance: Math.max(Math.hypot(ax - bx, ay - by), 1), middle: [(ax + bx) / 2, (ay + by) / 2] };
}
