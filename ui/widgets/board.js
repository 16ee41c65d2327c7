// HTML from Python whose parts report when they are pressed; see ui/board.py.
const typing = (target) =>
  target instanceof HTMLElement &&
  (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

// Boards in the order in which they were drawn last. While a page is drawn anew, what it showed
// before still stands there: a key then belongs to the board that was drawn last.
const boards = (window.hsBoards ??= new Set());
const holding = (key) =>
  [...boards]
    .filter((one) => one.isConnected && one.offsetParent !== null)
    .map((one) => one.querySelector(`[data-key="${CSS.escape(key)}"]`))
    .filter(Boolean)
    .pop();

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".hs-board");
  if (root.hsHtml !== data.html) {
    const held = root.contains(document.activeElement) ? document.activeElement : null;
    const card = held?.closest("[data-card]")?.dataset.card;
    const act = held?.dataset.act;
    root.innerHTML = data.html;
    root.hsHtml = data.html;
    if (card) {
      const again = root.querySelector(`[data-card="${CSS.escape(card)}"]`);
      (again?.querySelector(act ? `[data-act="${CSS.escape(act)}"]` : "none") ?? again)?.focus();
    }
  }

  const press = (part) =>
    setTriggerValue("act", { act: part.dataset.act, id: part.dataset.id ?? "", n: Date.now() });

  const clicked = (event) => {
    const part = event.target.closest("[data-act]");
    if (part && root.contains(part)) {
      event.preventDefault();
      press(part);
    }
  };

  const keyed = (event) => {
    if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!root.isConnected || root.offsetParent === null) return;
    const take = () => {
      event.preventDefault();
      event.stopImmediatePropagation(); // Streamlit has keys of its own, c among them
    };
    const wanted = holding(event.key);
    if (wanted) {
      if (!root.contains(wanted)) return;
      take();
      wanted.focus();
      wanted.scrollIntoView({ block: "nearest" });
      return;
    }
    const card = document.activeElement?.closest?.("[data-card]");
    if (!card || !root.contains(card)) return;
    const button = card.querySelector(`[data-card-key="${CSS.escape(event.key)}"]`);
    if (button) {
      take();
      press(button);
      return;
    }
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) {
      const cards = [...root.querySelectorAll("[data-card]")];
      const next = cards[cards.indexOf(card) + step];
      if (next) {
        take();
        next.focus();
        next.scrollIntoView({ block: "nearest" });
      }
    } else if (event.key === "Enter" && event.target === card) {
      const open = card.querySelector(".hs-open");
      if (open) {
        take();
        press(open);
      }
    }
  };

  boards.delete(root);
  boards.add(root);
  root.addEventListener("click", clicked);
  window.addEventListener("keydown", keyed, true);
  return () => {
    boards.delete(root);
    root.removeEventListener("click", clicked);
    window.removeEventListener("keydown", keyed, true);
  };
}
