// A map of many points; see ui/scatter.py.
const colour = (root, name) => {
  const probe = root.querySelector(`[data-probe="${name}"]`);
  return getComputedStyle(probe).color;
};

const outline = (shape, ctx, x, y, r) => {
  ctx.beginPath();
  if (shape === "square") ctx.rect(x - r, y - r, 2 * r, 2 * r);
  else if (shape === "diamond") {
    ctx.moveTo(x, y - 1.3 * r); ctx.lineTo(x + 1.3 * r, y);
    ctx.lineTo(x, y + 1.3 * r); ctx.lineTo(x - 1.3 * r, y); ctx.closePath();
  } else if (shape === "triangle-up") {
    ctx.moveTo(x, y - 1.3 * r); ctx.lineTo(x + 1.2 * r, y + r);
    ctx.lineTo(x - 1.2 * r, y + r); ctx.closePath();
  } else if (shape === "cross") {
    const s = r / 2.5;
    ctx.rect(x - r * 1.2, y - s, r * 2.4, 2 * s); ctx.rect(x - s, y - r * 1.2, 2 * s, r * 2.4);
  } else if (shape === "star") {
    for (let i = 0; i < 10; i++) {
      const far = i % 2 ? r * 0.7 : r * 1.6, turn = (Math.PI * i) / 5 - Math.PI / 2;
      ctx[i ? "lineTo" : "moveTo"](x + far * Math.cos(turn), y + far * Math.sin(turn));
    }
    ctx.closePath();
  } else ctx.arc(x, y, r, 0, 2 * Math.PI);
};

function build(root) {
  root.innerHTML =
    '<canvas role="img" tabindex="0"></canvas><div class="hs-scatter-tip" hidden></div>' +
    '<div class="hs-scatter-keys"></div><i data-probe="ink"></i><i data-probe="accent"></i>' +
    '<i data-probe="panel"></i><i data-probe="edge"></i><p class="hs-sr" role="status"></p>';
  const held = {
    root,
    canvas: root.querySelector("canvas"),
    tip: root.querySelector(".hs-scatter-tip"),
    said: root.querySelector("p"),
    mode: "lasso",
    zoom: 1, left: 0, top: 0,
    path: null, drag: null,
  };
  const keys = root.querySelector(".hs-scatter-keys");
  const button = (text, name, press) => {
    const made = document.createElement("button");
    Object.assign(made, { className: "hs-button", type: "button", textContent: text, title: name });
    made.setAttribute("aria-label", text.length > 1 ? `${text}: ${name}` : name);
    made.addEventListener("click", () => { press(made); });
    keys.append(made);
    return made;
  };
  held.lasso = button("Lasso", "Draw around points to make a gate", () => mode(held, "lasso"));
  held.move = button("Move", "Drag the map; the wheel zooms in both modes", () => mode(held, "move"));
  button("+", "Zoom in", () => zoom(held, 1.5));
  button("−", "Zoom out", () => zoom(held, 1 / 1.5));
  button("⤢", "Show all of it", () => { held.zoom = 1; held.left = held.top = 0; draw(held); });
  mode(held, "lasso");
  listen(held);
  new ResizeObserver(() => draw(held)).observe(root);
  return held;
}

function mode(held, name) {
  held.mode = name;
  held.lasso.setAttribute("aria-pressed", name === "lasso");
  held.move.setAttribute("aria-pressed", name === "move");
  held.canvas.style.cursor = name === "lasso" ? "crosshair" : "grab";
}

function zoom(held, by, x, y) {
  const { width, height } = held.canvas.getBoundingClientRect();
  const cx = x ?? width / 2, cy = y ?? height / 2;
  const next = Math.min(60, Math.max(0.8, held.zoom * by));
  const real = next / held.zoom;
  held.left = cx - (cx - held.left) * real;
  held.top = cy - (cy - held.top) * real;
  held.zoom = next;
  draw(held);
}

function frame(held) {
  const { width, height } = held.canvas.getBoundingClientRect();
  const { span } = held, pad = 32;
  const scale = Math.min((width - 2 * pad) / span.w, (height - 2 * pad) / span.h) * held.zoom;
  const x0 = held.left + ((width - (span.w * scale) / held.zoom) / 2) * held.zoom;
  const y0 = held.top + ((height - (span.h * scale) / held.zoom) / 2) * held.zoom;
  return {
    to: (x, y) => [x0 + (x - span.x) * scale, y0 + (span.y + span.h - y) * scale],
    from: (px, py) => [span.x + (px - x0) / scale, span.y + span.h - (py - y0) / scale],
  };
}

function measure(held) {
  const { x, y, placed } = held.data;
  let [a, b, c, d] = [Infinity, -Infinity, Infinity, -Infinity];
  const take = (px, py) => {
    if (px < a) a = px; if (px > b) b = px; if (py < c) c = py; if (py > d) d = py;
  };
  for (let i = 0; i < x.length; i++) take(x[i], y[i]);
  for (const [px, py] of placed) take(px, py);
  held.span = { x: a, y: c, w: Math.max(b - a, 1e-9), h: Math.max(d - c, 1e-9) };
}

function draw(held) {
  if (!held.data || !held.root.isConnected) return;
  const { canvas, data } = held;
  const { width, height } = canvas.getBoundingClientRect();
  if (!width) return;
  const dots = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * dots);
  canvas.height = Math.round(height * dots);
  const ctx = canvas.getContext("2d");
  const { to } = frame(held);
  const ink = colour(held.root, "ink"), accent = colour(held.root, "accent");
  const panel = colour(held.root, "panel"), edge = colour(held.root, "edge");
  const state = [canvas.width, canvas.height, held.zoom, held.left, held.top, accent, panel, edge];
  if (held.drawn !== state.join() || held.drawnData !== data) {
    held.points ??= document.createElement("canvas"); // a lasso moves over what was drawn once
    Object.assign(held.points, { width: canvas.width, height: canvas.height });
    held.drawn = state.join();
    held.drawnData = data;
    const back = held.points.getContext("2d");
    back.scale(dots, dots);
    points(held, back, { to, width, height, accent, panel, edge });
  }
  ctx.drawImage(held.points, 0, 0);
  ctx.scale(dots, dots);
  overlay(held, ctx, { to, ink, accent, panel });
}

function points(held, ctx, { to, width, height, accent, panel, edge }) {
  const { data } = held, n = data.x.length;
  const many = n > 30000;  // paths of 80,000 shapes take a second, squares a tenth of it
  const r =
    Math.min(5, Math.max(many ? 1 : 1.8, 95 / Math.sqrt(n))) * Math.min(2, Math.sqrt(held.zoom));
  const layer = (wanted) => {
    for (const i of held.order) {
      const kind = data.kinds[data.codes[i]];
      if ((kind.faint ? 0 : kind.strong ? 2 : 1) !== wanted) continue;
      const [px, py] = to(data.x[i], data.y[i]);
      if (px < -9 || py < -9 || px > width + 9 || py > height + 9) continue;
      ctx.globalAlpha = kind.faint ? 0.3 : kind.strong ? 1 : 0.8;
      ctx.fillStyle = kind.colour === "accent" ? accent : kind.colour === "edge" ? edge : kind.colour;
      if (many && !kind.strong) { ctx.fillRect(px - r, py - r, 2 * r, 2 * r); continue; }
      outline(kind.shape, ctx, px, py, kind.strong ? r * 1.5 : r);
      ctx.fill();
      if (kind.strong) { ctx.strokeStyle = panel; ctx.lineWidth = 1; ctx.stroke(); }
      else if (r >= 2.5 && !kind.faint) { ctx.strokeStyle = edge; ctx.lineWidth = 0.5; ctx.stroke(); }
    }
  };
  layer(0); layer(1); layer(2);
}

function overlay(held, ctx, { to, ink, accent, panel }) {
  const { data } = held;
  for (const [x, y] of data.placed) {
    const [px, py] = to(x, y);
    outline("star", ctx, px, py, 5);
    ctx.fillStyle = accent; ctx.strokeStyle = panel; ctx.lineWidth = 1.5;
    ctx.stroke(); ctx.fill();
  }
  ctx.lineWidth = 2; ctx.strokeStyle = ink; ctx.font = '600 13px "Source Sans", sans-serif';
  for (const gate of held.cut ? [...data.gates, held.cut] : data.gates) {
    ctx.setLineDash([6, 4]); ctx.beginPath();
    gate.corners.forEach(([x, y], i) => ctx[i ? "lineTo" : "moveTo"](...to(x, y)));
    ctx.closePath(); ctx.stroke(); ctx.setLineDash([]);
    const [px, py] = gate.corners.map(([x, y]) => to(x, y)).sort((p, q) => p[1] - q[1])[0];
    const wide = ctx.measureText(gate.name).width + 12;
    ctx.fillStyle = panel; ctx.fillRect(px - wide / 2, py - 22, wide, 20);
    ctx.strokeRect(px - wide / 2, py - 22, wide, 20);
    ctx.fillStyle = ink; ctx.textAlign = "center"; ctx.fillText(gate.name, px, py - 8);
  }
  if (held.path) {
    ctx.strokeStyle = accent; ctx.beginPath();
    held.path.forEach(([x, y], i) => ctx[i ? "lineTo" : "moveTo"](x, y));
    ctx.stroke();
  }
}

function nearest(held, px, py) {
  const { to } = frame(held);
  let best = 64, at = -1;
  for (let i = 0; i < held.data.x.length; i++) {
    const [x, y] = to(held.data.x[i], held.data.y[i]);
    const away = (x - px) ** 2 + (y - py) ** 2;
    if (away < best) { best = away; at = i; }
  }
  return at;
}

// The gate that was just drawn, with its count, until the page has it in its table.
function cut(held, corners) {
  const { x, y } = held.data;
  let n = 0;
  for (let i = 0; i < x.length; i++) {
    let odd = false;
    for (let at = 0, from = corners.length - 1; at < corners.length; from = at++) {
      const [ax, ay] = corners[at], [bx, by] = corners[from];
      if (ay > y[i] !== by > y[i] && x[i] < ((bx - ax) * (y[i] - ay)) / (by - ay) + ax) odd = !odd;
    }
    if (odd) n++;
  }
  const name = `${n.toLocaleString("en")} inside`;
  held.said.textContent = name;
  held.cut = { name, corners };
}

// What a point is, and its picture where the page serves it.
function hover(held, at) {
  held.over = at;
  const { data } = held;
  const name = data.kinds[data.codes[at]].name;
  held.tip.replaceChildren(name);
  if (!data.pictures) return;
  const picture = new Image(96, 96);
  picture.alt = name;
  picture.addEventListener("error", () => picture.remove());
  picture.src = new URL(`${data.pictures}/${data.ids[at]}.jpeg`, document.baseURI).href;
  held.tip.append(picture);
}

function listen(held) {
  const { canvas } = held;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(held, event.deltaY < 0 ? 1.15 : 1 / 1.15, ...place(event));
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    held.drag = place(event);
    held.cut = null;
    if (held.mode === "lasso") held.path = [held.drag];
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    if (!held.drag) {
      const at = nearest(held, x, y);
      held.tip.hidden = at < 0;
      if (at >= 0) {
        if (held.over !== at) hover(held, at);
        const below = y + 12 + held.tip.offsetHeight < canvas.clientHeight;
        held.tip.style.left = `${Math.min(x + 12, canvas.clientWidth - 160)}px`;
        held.tip.style.top = `${below ? y + 12 : Math.max(0, y - 12 - held.tip.offsetHeight)}px`;
      }
      return;
    }
    if (held.mode === "lasso") {
      const [lx, ly] = held.path[held.path.length - 1];
      if ((x - lx) ** 2 + (y - ly) ** 2 > 16) held.path.push([x, y]);
    } else {
      held.left += x - held.drag[0];
      held.top += y - held.drag[1];
      held.drag = [x, y];
    }
    draw(held);
  });
  const end = (event) => {
    if (!held.drag) return;
    const [x, y] = place(event);
    const path = held.path;
    held.drag = held.path = null;
    if (path && path.length > 3) {
      const { from } = frame(held);
      const corners = path.map(([px, py]) => from(px, py));
      cut(held, corners);
      held.send("lasso", { corners, n: Date.now() });
    } else if (held.mode === "lasso" || !path) {
      const at = nearest(held, x, y);
      if (at >= 0 && path) held.send("point", { at, n: Date.now() });
    }
    draw(held);
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", () => { held.drag = held.path = null; draw(held); });
  canvas.addEventListener("pointerleave", () => { held.tip.hidden = true; });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
    if (step) { held.left += step[0]; held.top += step[1]; draw(held); event.preventDefault(); }
    if (event.key === "+" || event.key === "=") zoom(held, 1.5);
    if (event.key === "-") zoom(held, 1 / 1.5);
  });
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".hs-scatter");
  root.style.height = `clamp(360px, calc(100vh - 312px), ${data.tall}px)`; // in view at once
  root.hsHeld ??= build(root);
  const held = root.hsHeld;
  if (held.data?.gates.length !== data.gates.length) held.cut = null;
  held.data = data;
  held.send = setTriggerValue;
  held.canvas.setAttribute(
    "aria-label",
    `Map of ${data.x.length} ${data.what}, ${data.gates.length} gates on it; the counts stand below`,
  );
  if (held.order?.length !== data.x.length) {
    let seed = 7; // the same shuffle every time, so that no value hides the others
    held.order = [...data.x.keys()];
    for (let i = held.order.length - 1; i > 0; i--) {
      seed = (seed * 1103515245 + 12345) % 2147483648;
      const j = seed % (i + 1);
      [held.order[i], held.order[j]] = [held.order[j], held.order[i]];
    }
  }
  measure(held);
  draw(held);
  const night = matchMedia("(prefers-color-scheme: dark)");
  const again = () => setTimeout(() => draw(held), 50);
  night.addEventListener("change", again);
  return () => night.removeEventListener("change", again);
}
