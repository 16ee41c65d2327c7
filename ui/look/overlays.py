"""Maps over pictures: a grid of numbers or colours as a transparent PNG."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search.schemas.explanations import ExplainColours, ExplainMap
from ui.look.card import data_url
from ui.look.palette import SEQUENCE, shade

Part = tuple[float, float, float, float]
"""Left, top, width and height of what a map covers, as shares of the picture's sides."""
WHOLE: Part = (0.0, 0.0, 1.0, 1.0)
SIDE = 224
"""Pixels of an overlay's side; the browser draws it over the picture."""
NAMES = {
    "none": "Off",
    "colours": "Structure types",
    "correspondence": "Shared structures",
    "causal": "What drives similarity",
    "vote": "What drives the vote",
    "attention": "Attention",
}
WORDS = {
    "colours": "The same colour is the same kind of structure to the encoder, in every picture. "
    "Background is left plain.",
    "correspondence": "Bright where the encoder sees a structure that the other picture has too; "
    "equal numbers mark patches that are each other's nearest.",
    "causal": "Bright where hiding the place lowers the similarity of the two most.",
    "vote": "Bright where hiding the place takes most from the label that wins the vote.",
    "attention": "What the encoder's last layer looks at: a plain baseline, not an explanation of "
    "this hit.",
}
"""What each map shows."""
_RAMP = np.array(
    [[int(shade(at / 255)[part : part + 2], 16) for part in (1, 3, 5)] for at in range(256)],
    np.uint8,
)


def heat(found: ExplainMap, part: Part = WHOLE) -> str:
    """A map as a data address: dark and clear where low, bright and dense where high.

    Args:
        found: The map.
        part: What it covers of the picture.
    """
    values = np.asarray(found.values, np.float32)
    large = np.asarray(Image.fromarray(values).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).clip(
        0, 1
    )
    rgba = np.empty((SIDE, SIDE, 4), np.uint8)
    rgba[..., :3] = _RAMP[np.rint(large * 255).astype(np.int64)]
    rgba[..., 3] = np.rint(large**0.8 * 190)
    return _png(_placed(rgba, part))


def patches(found: ExplainColours, part: Part = WHOLE) -> str:
    """Patch colours as a data address; background is clear. `part` as of `heat`."""
    rows = len(found.rgb)
    rgba = np.zeros((rows, len(found.rgb[0]), 4), np.uint8)
    for y, row in enumerate(found.rgb):
        for x, colour in enumerate(row):
            if colour is not None:
                rgba[y, x] = (*colour, 205)
    large = Image.fromarray(rgba).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    return _png(_placed(np.asarray(large), part))


def _placed(rgba: NDArray[np.uint8], part: Part) -> NDArray[np.uint8]:
    """An overlay of a part of a picture as one of the whole, clear outside the part."""
    if part == WHOLE:
        return rgba
    left, top, wide, high = (round(SIDE * share) for share in part)
    small = np.asarray(Image.fromarray(rgba).resize((max(wide, 1), max(high, 1))))
    whole = Image.new("RGBA", (SIDE, SIDE))
    whole.paste(Image.fromarray(small), (left, top))
    return np.asarray(whole)


def legend(kind: str) -> str:
    """What a map shows, with its scale."""
    ramp = f"linear-gradient(90deg, {', '.join(SEQUENCE)})"
    scale = (
        ""
        if kind == "colours"
        else f'<span class="hs-ramp">low <i style="background:{ramp}"></i> high</span>'
    )
    return f'<p class="hs-legend">{scale}<span>{WORDS[kind]}</span></p>'


def checked(found: ExplainMap) -> str:
    """How a map did against chance, in words."""
    if found.check is None:
        return "not checked"
    check = found.check
    return (
        f"insertion {check.insertion:.2f}, deletion {check.deletion:.2f}; difference "
        f"{check.insertion - check.deletion:+.2f}, best of random maps {max(check.random):+.2f}"
    )


def _png(rgba: np.ndarray) -> str:
    out = BytesIO()
    Image.fromarray(rgba).save(out, "PNG")
    return data_url(out.getvalue(), "png")
