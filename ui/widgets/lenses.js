// Pictures side by side under one zoom, at one physical scale; see ui/lenses.py.
const STEPS = [1, 2, 5];
const MOST = 12;

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".hs-lenses");
  const view = (root.hsView ??= { k: 1, x: 0, y: 0 });
  if (root.hsKey !== data.key) {
    root.hsKey = data.key;
    root.replaceChildren(...data.panes.map((pane) => made(pane, data)));
  }
  const planes = [...root.querySelectorAll(".hs-plane")];
  const lenses = [...root.querySelectorAll(".hs-lens")];
  const apply = () => {
    const room = (view.k - 1) / 2 + 0.5;
    view.x = Math.min(Math.max(view.x, -room), room);
    view.y = Math.min(Math.max(view.y, -room), room);
    for (const plane of planes) {
      plane.style.transform = `translate(${view.x * 100}%, ${view.y * 100}%) scale(${view.k})`;
    }
    lenses.forEach((lens, at) => bar(lens, data.panes[at], data.span, view.k));
  };
  const zoom = (factor, at = { x: 0, y: 0 }) => {
    const k = Math.min(Math.max(view.k * factor, 1), MOST);
    const ratio = k / view.k;
    view.x = at.x - (at.x - view.x) * ratio;
    view.y = at.y - (at.y - view.y) * ratio;
    view.k = k;
    apply();
  };
  const spot = (event, lens) => {
    const frame = lens.getBoundingClientRect();
    return {
      x: (event.clientX - frame.left) / frame.width - 0.5,
      y: (event.clientY - frame.top) / frame.height - 0.5,
    };
  };

  const undo = [];
  const on = (target, name, handler, options) => {
    target.addEventListener(name, handler, options);
    undo.push(() => target.removeEventListener(name, handler, options));
  };
  let from = null;
  for (const lens of lenses) {
    on(lens, "wheel", (event) => {
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, spot(event, lens));
    }, { passive: false });
    on(lens, "pointerdown", (event) => {
      from = { ...spot(event, lens), vx: view.x, vy: view.y };
      lens.setPointerCapture(event.pointerId);
    });
    on(lens, "pointermove", (event) => {
      if (!from) return;
      const now = spot(event, lens);
      view.x = from.vx + now.x - from.x;
      view.y = from.vy + now.y - from.y;
      apply();
    });
    for (const name of ["pointerup", "pointercancel"]) on(lens, name, () => (from = null));
    on(lens, "dblclick", (event) => zoom(2, spot(event, lens)));
    on(lens, "keydown", (event) => {
      const move = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
      if (event.key === "+" || event.key === "=") zoom(1.25);
      else if (event.key === "-") zoom(1 / 1.25);
      else if (event.key === "0") Object.assign(view, { k: 1, x: 0, y: 0 }), apply();
      else if (move[event.key]) {
        view.x += move[event.key][0] * 0.08;
        view.y += move[event.key][1] * 0.08;
        apply();
      } else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }
  apply();
  return () => undo.forEach((one) => one());
}

function made(pane, data) {
  const outer = element("figure", "hs-pane" + (pane.query ? " hs-pane-query" : ""));
  const lens = element("div", "hs-lens");
  lens.tabIndex = 0;
  lens.setAttribute("role", "group");
  lens.setAttribute("aria-label", `${pane.title}: zoom with + and -, move with the arrow keys`);
  const plane = element("div", "hs-plane");
  const share = pane.span ? Math.min(pane.span / data.span, 1) : 1;
  const longer = Math.max(pane.width, pane.height);
  const inner = element("div", "hs-inner");
  inner.style.width = `${((share * pane.width) / longer) * 100}%`;
  inner.style.height = `${((share * pane.height) / longer) * 100}%`;
  inner.append(picture(pane.src, pane.alt, ""));
  if (pane.overlay) inner.append(picture(pane.overlay, pane.overlayAlt, "hs-overlay"));
  for (const dot of pane.dots) {
    const mark = element("span", "hs-dot");
    mark.style.left = `${dot.x * 100}%`;
    mark.style.top = `${dot.y * 100}%`;
    mark.textContent = dot.text;
    inner.append(mark);
  }
  plane.append(inner);
  const ruler = element("span", "hs-scale");
  ruler.append(element("b", ""));
  lens.append(plane, ruler);
  const caption = element("figcaption", "");
  const title = element("b", "");
  title.textContent = pane.title;
  caption.append(title);
  for (const line of pane.lines) {
    const said = element("span", "hs-faint");
    said.textContent = line;
    caption.append(said);
  }
  if (pane.withheld) {
    const said = element("span", "hs-withheld");
    said.textContent = pane.withheld;
    caption.append(said);
  }
  outer.append(lens, caption);
  return outer;
}

function bar(lens, pane, span, k) {
  const ruler = lens.querySelector(".hs-scale");
  const words = ruler.querySelector("b");
  if (!pane.span) {
    words.textContent = "scale unknown";
    ruler.style.outline = "none";
    ruler.style.setProperty("--hs-bar", "0%");
    return;
  }
  const room = (span / k) * 0.4;
  const power = 10 ** Math.floor(Math.log10(room));
  const length = Math.max(...STEPS.map((step) => step * power).filter((one) => one <= room));
  ruler.style.setProperty("--hs-bar", `${((length * k) / span) * 100}%`);
  words.textContent = `${pane.estimated ? "about " : ""}${Number(length.toPrecision(2))} µm`;
}

function element(kind, name) {
  const one = document.createElement(kind);
  one.className = name;
  return one;
}

function picture(src, alt, name) {
  const image = new Image();
  image.src = src;
  image.alt = alt;
  image.className = name;
  image.draggable = false;
  return image;
}
