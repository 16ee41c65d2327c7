"""An item as a card: picture, label, score, where it comes from, scale bar."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

from PIL import Image

from search.schemas.items import Item
from ui.look.scalebar import bar_html, scale_bar, side_um
from ui.look.theme import GLYPHS

SIMILARITY = (
    "Similarity: the cosine of the two vectors. 1 is the same picture; it is no probability."
)
THUMBNAIL_PX = 160
"""A picture with exactly this many pixels a side may have been shrunk: it has lost its size."""


@dataclass(frozen=True)
class Action:
    """A button on a card, for a page that draws its cards on a `ui.widgets.board`."""

    act: str
    """What the board reports."""
    text: str
    """What is shown: one or two characters, or the name of a drawing of `ui.look.theme.GLYPHS`;
    `name` says it in words."""
    name: str
    key: str = ""
    """A key that does the same while the card has the focus."""
    on: bool | None = None
    """Whether it is pressed, for a button that stays so."""


def data_url(content: bytes, kind: str = "jpeg") -> str:
    """A picture as a data address."""
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def pixels(content: bytes) -> tuple[int, int]:
    """Width and height of a picture; only its header is read."""
    with Image.open(BytesIO(content)) as image:
        return image.size


def card(
    item: Item,
    picture: bytes,
    *,
    at: int | None = None,
    number: int | None = None,
    score: float | None = None,
    actions: Sequence[Action] = (),
    act: str = "",
    note: str = "",
    strip: str = "",
    mark: str = "",
    badge: str = "",
    label: str | None = None,
) -> str:
    """An item as a list entry of a `hs-grid`.

    Args:
        item: The item.
        picture: Its JPEG, as the service gives it: the thumbnail, or the whole picture.
        at: Its place among neighbours, from 1, which is shown.
        number: Its place in any other list; either way the key of that digit goes to the card.
        score: Its similarity.
        actions: Buttons under the picture.
        act: What a board reports when the picture is clicked; empty for nothing.
        note: A line, or several, over where it comes from.
        strip: HTML of small pictures under the large one.
        mark: A class for cards that stand out.
        badge: One or two words on the picture, such as that the item votes.
        label: A reviewer's label, where it counts before the recorded one.
    """
    label = label or item.label or "no label"
    words = [f"Neighbour {at}: {label}" if at is not None else label]
    words += [f"similarity {score:.3f}"] if score is not None else []
    alt = escape(", ".join(words))
    width, height = pixels(picture)
    longer = max(width, height)
    bar = scale_bar(
        side_um(item, longer if longer != THUMBNAIL_PX else None),
        item.um_per_px_origin == "estimate",
    )
    id = escape(item.id)
    image = f'<img src="{data_url(picture)}" alt="{alt}">'
    if act:
        image = (
            f'<button class="hs-open" data-act="{escape(act)}" data-id="{id}" '
            f'aria-label="Open {alt}">{image}</button>'
        )
    buttons = "".join(_button(action, id) for action in actions)
    digit = at or number
    reached = f' data-key="{digit}"' if digit is not None and digit <= 9 else ""
    shown = (
        "" if score is None else f'<span class="hs-score" title="{SIMILARITY}">{score:.3f}</span>'
    )
    badged = f'<span class="hs-votes">{escape(badge)}</span>' if badge else ""
    place = "" if at is None else f'<span class="hs-at">{at}</span>'
    return (
        f'<li class="hs-card {escape(mark)}" tabindex="-1" data-card="{id}"{reached}>'
        f"<figure>{image}{bar_html(bar)}{place}{badged}</figure>"
        f'<div><span class="hs-label"><span>{escape(label)}</span>{shown}</span>'
        + "".join(f'<span class="hs-note-line">{escape(one)}</span>' for one in note.splitlines())
        + f'<span class="hs-faint" title="{escape(", ".join(origin(item)))}">'
        + f"{_lines(origin(item))}</span>"
        + (f'<span class="hs-acts">{strip}{buttons}</span>' if buttons or strip else "")
        + "</div></li>"
    )


def _button(action: Action, id: str) -> str:
    pressed = "" if action.on is None else f' aria-pressed="{str(action.on).lower()}"'
    key = f' data-card-key="{escape(action.key)}"' if action.key else ""
    hint = f"{action.name} (key {action.key})" if action.key else action.name
    shown = escape(action.text)
    if action.text in GLYPHS:
        shown = f'<i class="hs-glyph hs-icon-{action.text}" aria-hidden="true"></i>'
    return (
        f'<button data-act="{escape(action.act)}" data-id="{id}"{pressed}{key} '
        f'aria-label="{escape(action.name)}" title="{escape(hint)}">{shown}</button>'
    )


def _lines(lines: Sequence[str]) -> str:
    """Lines of text, all but the first in one element, which a small card leaves out."""
    first, *others = [escape(line) for line in lines] or [""]
    rest = "".join(f"<br>{line}" for line in others)
    return f'{first}<span class="hs-rest">{rest}</span>' if rest else first


def origin(item: Item) -> list[str]:
    """Where an item comes from, in short lines, the most telling first."""
    unknown = [] if item.case else ["case"]
    unknown += ["scale"] if item.um_per_px is None else []
    place = (item.site or item.dataset, item.stain)
    lines = [
        " · ".join(part for part in place if part),
        f"case {item.case}" if item.case else "",
        item.acquired.isoformat() if item.acquired else "",
        f"{' and '.join(unknown)} unknown" if unknown else "",
    ]
    return [line for line in lines if line]


def scale_words(item: Item) -> str:
    """The scale of an item in words."""
    if item.um_per_px is None:
        return "scale unknown"
    guess = "about " if item.um_per_px_origin == "estimate" else ""
    return f"{guess}{item.um_per_px:.3g} µm per px"
