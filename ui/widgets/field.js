// A picture on which cells are offered and a box can be drawn; see ui/field.py.
const SVG = "http://www.w3.org/2000/svg";
const LEAST = 8; // pixels of the screen; less is a click

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".hs-field");
  if (root.hsKey !== data.key) {
    root.hsKey = data.key;
    draw(root, data, (box) => setTriggerValue("box", { ...box, n: Date.now() }));
  }
}

function draw(root, data, report) {
  root.replaceChildren();
  const image = new Image();
  image.src = data.src;
  image.alt = data.alt;
  image.draggable = false;
  const over = document.createElementNS(SVG, "svg");
  over.setAttribute("viewBox", `0 0 ${data.width} ${data.height}`);
  over.setAttribute("preserveAspectRatio", "none");
  over.setAttribute("role", "group");
  over.setAttribute("aria-label", "Cells in the picture");
  over.append(...data.cells.map((cell) => mark(cell, report)));
  over.append(...data.cells.filter((cell) => cell.called[0]).map((cell) => name(cell, data)));
  const drawn = document.createElementNS(SVG, "rect");
  drawn.setAttribute("class", "hs-drawn");
  drawn.style.display = "none";
  over.append(drawn);
  root.append(image, over);

  let start = null;
  const at = (event) => {
    const frame = over.getBoundingClientRect();
    const clamp = (value, top) => Math.min(Math.max(value, 0), top);
    return {
      x: clamp(((event.clientX - frame.left) / frame.width) * data.width, data.width),
      y: clamp(((event.clientY - frame.top) / frame.height) * data.height, data.height),
      sx: event.clientX,
      sy: event.clientY,
    };
  };
  const between = (one, other) => ({
    x: Math.round(Math.min(one.x, other.x)),
    y: Math.round(Math.min(one.y, other.y)),
    w: Math.max(1, Math.round(Math.abs(one.x - other.x))),
    h: Math.max(1, Math.round(Math.abs(one.y - other.y))),
  });
  over.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    start = at(event);
    start.cell = event.target.closest("[data-at]");
    over.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  over.addEventListener("pointermove", (event) => {
    if (start) place(drawn, between(start, at(event)));
  });
  over.addEventListener("pointerup", (event) => {
    if (!start) return;
    const end = at(event);
    const from = start;
    start = null;
    const moved = Math.max(Math.abs(end.sx - from.sx), Math.abs(end.sy - from.sy));
    if (moved >= LEAST) {
      report({ ...between(from, end), by: "hand" });
    } else {
      drawn.style.display = "none";
      if (from.cell) report({ ...data.cells[Number(from.cell.dataset.at)].crop, by: "click" });
    }
  });
  over.addEventListener("pointercancel", () => {
    start = null;
    drawn.style.display = "none";
  });
}

function mark(cell, report) {
  const made = document.createElementNS(SVG, "rect");
  for (const [name, value] of Object.entries({ x: "x", y: "y", w: "width", h: "height" })) {
    made.setAttribute(value, cell.bbox[name]);
  }
  made.setAttribute("rx", Math.min(cell.bbox.w, cell.bbox.h) / 4);
  made.setAttribute("class", `hs-cell hs-cell-${cell.kind}`);
  made.setAttribute("tabindex", "0");
  made.setAttribute("role", "button");
  const [called, colour, line] = cell.called;
  const words = called ? `${cell.name}: ${called}` : cell.name;
  made.setAttribute("aria-label", words);
  made.dataset.at = cell.at;
  if (colour) made.style.stroke = colour;
  if (line === "dashed") made.style.strokeDasharray = "8 4";
  const title = document.createElementNS(SVG, "title");
  title.textContent = words;
  made.append(title);
  made.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      report({ ...cell.crop, by: "key" });
    }
  });
  return made;
}

function name(cell, data) {
  const made = document.createElementNS(SVG, "text");
  const size = Math.max(10, data.width / 48);
  const above = cell.bbox.y > size * 1.2;
  const wide = cell.called[0].length * size * 0.56;
  made.setAttribute("x", Math.max(2, Math.min(cell.bbox.x, data.width - wide)));
  made.setAttribute("y", above ? cell.bbox.y - size * 0.3 : cell.bbox.y + size);
  made.setAttribute("font-size", size);
  made.setAttribute("class", "hs-cell-name");
  made.setAttribute("aria-hidden", "true");
  made.textContent = cell.called[0];
  return made;
}

function place(rect, box) {
  rect.style.display = "";
  rect.setAttribute("x", box.x);
  rect.setAttribute("y", box.y);
  rect.setAttribute("width", box.w);
  rect.setAttribute("height", box.h);
}
