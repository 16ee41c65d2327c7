// A stored source to zoom into; see ui/viewer.py.
const NICE = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
const SVG = "http://www.w3.org/2000/svg";
const DASHES = { dashed: "7 4", dotted: "2 3" };

const load = (url) => {
  if (window.OpenSeadragon) return Promise.resolve();
  window.hsViewerScript ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL(url, document.baseURI).href;
    script.onload = resolve;
    script.onerror = () => {
      window.hsViewerScript = undefined;
      script.remove();
      reject(new Error("the viewer's script did not come"));
    };
    document.head.append(script);
  });
  return window.hsViewerScript;
};

const button = (text, name, press) => {
  const made = document.createElement("button");
  made.className = "hs-button";
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", name);
  made.title = name;
  made.addEventListener("click", press);
  return made;
};

// A button that hides the boxes, and how strongly they are drawn.
function boxes(svg) {
  const shown = button("□", "Show the boxes", () => {
    const on = shown.getAttribute("aria-pressed") !== "true";
    shown.setAttribute("aria-pressed", String(on));
    svg.style.visibility = on ? "visible" : "hidden";
  });
  shown.setAttribute("aria-pressed", "true");
  const strength = document.createElement("input");
  Object.assign(strength, { type: "range", min: "10", max: "100", value: "100" });
  strength.className = "hs-viewer-strength";
  strength.setAttribute("aria-label", "How strongly the boxes are drawn");
  strength.title = "How strongly the boxes are drawn";
  strength.addEventListener("input", () => {
    svg.style.opacity = String(Number(strength.value) / 100);
  });
  return [shown, strength];
}

function build(root, data) {
  root.replaceChildren();
  const stage = document.createElement("div");
  stage.className = "hs-viewer-stage";
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "hs-viewer-marks");
  const group = document.createElementNS(SVG, "g");
  svg.append(group);
  const bar = document.createElement("div");
  bar.className = "hs-viewer-bar";
  const said = document.createElement("div");
  said.className = "hs-viewer-said";
  said.setAttribute("role", "status");
  root.append(stage, svg, bar, said);

  const OSD = window.OpenSeadragon;
  const base = new URL(data.tiles, document.baseURI).href;
  const viewer = new OSD.Viewer({
    element: stage,
    showNavigationControl: false,
    showNavigator: false,
    drawer: "canvas",
    animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.4,
    maxZoomPixelRatio: 6,
    visibilityRatio: 0.5,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    gestureSettingsTouch: { clickToZoom: false },
    tileSources: {
      width: data.width,
      height: data.height,
      tileSize: data.tile,
      tileOverlap: data.overlap,
      minLevel: data.min,
      maxLevel: data.max,
      getTileUrl: (level, x, y) => `${base}/${level}/${x}_${y}.jpeg`,
    },
  });
  stage.querySelector("canvas")?.setAttribute("aria-hidden", "true");
  stage.setAttribute("role", "application");
  stage.setAttribute("aria-label", "The source; arrow keys move, plus and minus zoom");
  const keys = document.createElement("div");
  keys.className = "hs-viewer-keys";
  keys.append(
    button("+", "Zoom in", () => viewer.viewport.zoomBy(1.6) && viewer.viewport.applyConstraints()),
    button("−", "Zoom out", () => viewer.viewport.zoomBy(0.625) && viewer.viewport.applyConstraints()),
    button("⤢", "Show all of it", () => viewer.viewport.goHome()),
  );
  keys.append(...boxes(svg));
  root.append(keys);

  const held = { viewer, group, svg, bar, said, data, picked: undefined };
  const follow = () => {
    if (!viewer.viewport || !viewer.world.getItemCount()) return;
    const image = viewer.world.getItemAt(0);
    const zero = image.imageToViewerElementCoordinates(new OSD.Point(0, 0));
    const far = image.imageToViewerElementCoordinates(new OSD.Point(1000, 0));
    const scale = (far.x - zero.x) / 1000;
    group.setAttribute("transform", `translate(${zero.x} ${zero.y}) scale(${scale})`);
    held.scale = scale;
    const um = held.data.um;
    if (um) {
      const length = NICE.filter((one) => (one / um) * scale <= 140).pop() ?? NICE[0];
      bar.style.width = `${(length / um) * scale}px`;
      bar.innerHTML = `<b>${length >= 1000 ? `${length / 1000} mm` : `${length} µm`}</b>`;
    } else {
      bar.style.width = "0";
      bar.style.outline = "none";
      bar.innerHTML = "<b>scale unknown</b>";
    }
  };
  for (const event of ["open", "animation", "resize", "update-viewport", "tile-drawn"]) {
    viewer.addHandler(event, follow);
  }
  viewer.addHandler("open", () => {
    root.dataset.open = "true";
    show(held);
  });
  viewer.addHandler("tile-load-failed", () => {
    said.textContent = "A part of this source cannot be read.";
  });
  viewer.addHandler("open-failed", () => {
    said.textContent = "This source cannot be shown now. Reload the page; if it stays, see the service's log.";
  });
  viewer.addHandler("canvas-click", (event) => {
    if (!event.quick) return;
    const point = viewer.world.getItemAt(0).viewerElementToImageCoordinates(event.position);
    const hit = held.data.marks
      .filter((m) => point.x >= m.x && point.x <= m.x + m.w && point.y >= m.y && point.y <= m.y + m.h)
      .sort((a, b) => b.strong - a.strong || a.w * a.h - b.w * b.h)[0];
    if (hit) held.pick({ id: hit.id, n: Date.now() });
  });
  return held;
}

function draw(held) {
  const parts = held.data.marks.map((m) => {
    const box = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({ x: m.x, y: m.y, width: m.w, height: m.h })) {
      box.setAttribute(name, value);
    }
    box.setAttribute("stroke", m.colour);
    if (DASHES[m.line]) box.setAttribute("stroke-dasharray", DASHES[m.line]);
    box.setAttribute("data-mark", m.id);
    box.setAttribute(
      "class",
      `${m.strong ? "hs-strong" : ""} ${m.id === held.data.picked ? "hs-picked" : ""}`.trim(),
    );
    if (m.strong) box.setAttribute("fill", `${m.colour}33`);
    const title = document.createElementNS(SVG, "title");
    title.textContent = m.text;
    box.append(title);
    return box;
  });
  held.group.replaceChildren(...parts);
}

function show(held) {
  const picked = held.data.picked;
  if (!picked || picked === held.picked || !held.viewer.world.getItemCount()) return;
  held.picked = picked;
  const m = held.data.marks.find((one) => one.id === picked);
  if (!m) return;
  const image = held.viewer.world.getItemAt(0);
  const { width, height } = held.data;
  const side = Math.min(Math.max(m.w, m.h) * 5, Math.max(width, height));
  const within = (middle, whole) => Math.min(Math.max(middle - side / 2, 0), Math.max(whole - side, 0));
  const x = side > width ? (width - side) / 2 : within(m.x + m.w / 2, width);
  const y = side > height ? (height - side) / 2 : within(m.y + m.h / 2, height);
  const around = image.imageToViewportRectangle(x, y, side, side);
  const now = held.viewer.viewport.getBounds();
  const inside =
    around.x > now.x && around.y > now.y &&
    around.x + around.width < now.x + now.width && around.y + around.height < now.y + now.height;
  if (!inside || now.width > around.width * 6) held.viewer.viewport.fitBounds(around);
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".hs-viewer");
  root.style.height = `min(${data.tall}px, max(360px, calc(100vh - 312px)))`; // in view at once
  let gone = false;
  load(data.script)
    .then(() => {
      if (gone) return;
      if (root.hsHeld?.data.source !== data.source || !root.hsHeld.viewer.element?.isConnected) {
        root.hsHeld?.viewer.destroy();
        root.dataset.open = "false";
        root.hsHeld = build(root, data);
      }
      const held = root.hsHeld;
      held.data = data;
      held.pick = (value) => setTriggerValue("pick", value);
      draw(held);
      show(held);
      held.viewer.forceRedraw?.();
    })
    .catch(() => {
      root.innerHTML = '<p class="hs-note hs-bad">The viewer did not load. Reload the page.</p>';
    });
  return () => {
    gone = true;
    if (!root.isConnected) {
      root.hsHeld?.viewer.destroy();
      root.hsHeld = undefined;
    }
  };
}
