// Every text that is seen, and whose contrast with what lies behind it is below WCAG 2.2 AA (1.4.3).
// Left out: what is disabled, drawings with a text beside them, and a value that floats over its thumb.
() => {
  const parse = (text) => {
    const canvas = (window.hsCanvas ??= Object.assign(document.createElement("canvas"), { width: 1, height: 1 }));
    const ctx = canvas.getContext("2d", { willReadFrequently: true });
    ctx.clearRect(0, 0, 1, 1); ctx.fillStyle = text; ctx.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = ctx.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((at) => top[at] * top[3] + under[at] * (1 - top[3]));
  const light = (c) => {
    const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (walk.nextNode()) {
    const part = walk.currentNode.parentElement;
    const text = walk.currentNode.textContent.trim();
    if (!text || seen.has(part) || !part.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    seen.add(part);
    if (part.closest("[disabled], [aria-disabled='true'], [aria-hidden='true'], [data-testid='stSliderThumbValue'], .hs-sr, style, script, svg")) continue;
    const box = part.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    const style = getComputedStyle(part);
    const grounds = [];
    let solid = false;
    for (let at = part; at && !solid; at = at.parentElement) {
      const ground = parse(getComputedStyle(at).backgroundColor);
      if (ground[3] > 0) grounds.push(ground);
      solid = ground[3] === 1;
    }
    let under = solid ? grounds.pop().slice(0, 3) : [255, 255, 255];
    for (const one of grounds.reverse()) under = over(one, under);
    const ink = over(parse(style.color), under);
    const [a, b] = [light(ink), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const px = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
    const least = px >= 24 || (bold && px >= 18.66) ? 3 : 4.5;
    if (ratio < least - 0.005) found.push(`${ratio.toFixed(2)} ${text.slice(0, 40)} <${part.tagName.toLowerCase()} class="${String(part.className).slice(0, 60)}"> ${style.color} on ${under.map(Math.round)}`);
  }
  return found;
}
