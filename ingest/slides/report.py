"""What became of a slide: counts by reason, and a picture that shows them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from encoder.contract import RGB
from encoder.durable import replacing
from ingest.slides.grid import Boxes
from ingest.slides.quality import REASONS, Reason

COLOURS: dict[Reason, tuple[int, int, int]] = {
    "kept": (0, 158, 115),
    "outside the region": (150, 150, 150),
    "little tissue": (200, 200, 200),
    "pen": (204, 121, 167),
    "blank": (86, 180, 233),
    "saturated": (240, 228, 66),
    "out of focus": (230, 159, 0),
    "damaged": (213, 94, 0),
}
"""One colour per reason, told apart by colour-blind eyes too (Okabe and Ito 2008)."""
LONGEST = 2048
SHORTEST = 768
"""The longer side of the picture lies between these."""


@dataclass(frozen=True, kw_only=True)
class SlideReport:
    """One slide (or one part of it), in numbers. It names no file, no person and no date."""

    facts: Mapping[str, Any]
    """Vendor, reader, size, levels, scale and objective as the file says."""
    plan: Mapping[str, Any]
    """Tile size and scale, overlap, least tissue."""
    limits: Mapping[str, float]
    """Thresholds of quality."""
    um_per_px: tuple[float, float]
    """Of level 0 along x and y, as used."""
    um_per_px_origin: str
    """`file` or `manifest`."""
    level: int
    """The level that tiles were cut from."""
    resampled: bool
    """Whether tiles were resampled to the scale of the plan."""
    tissue_mm2: float
    """Area of the tissue mask."""
    pen_share: float
    """Share of the overview that is ink."""
    counts: Mapping[str, int]
    """Tiles of the grid by what became of them."""
    stain: str | None
    """Name and version of the stain normalisation."""
    unstained: int
    """Tiles on which it failed and which were kept as they were."""
    part: tuple[int, int]
    """`(i, n)`: this is the i-th of n parts; the tissue area is of the whole slide."""
    failure: str | None
    """Why there is no tile, in a sentence; `None` if there is one."""
    warnings: tuple[str, ...]
    """What should be looked at although tiles were made."""

    @property
    def kept(self) -> int:
        """Tiles that were passed on."""
        return self.counts.get("kept", 0)

    @classmethod
    def of(
        cls,
        *,
        facts: Mapping[str, Any],
        um_per_px: tuple[float, float],
        tissue_share: float,
        reasons: Sequence[Reason],
        restricted: bool,
        **rest: Any,
    ) -> SlideReport:
        """Put a report together from what was found."""
        found = Counter(reasons)
        counts: dict[str, int] = {reason: found[reason] for reason in REASONS if found[reason]}
        area = facts["width"] * facts["height"] * um_per_px[0] * um_per_px[1] * 1e-6
        return cls(
            facts=facts,
            um_per_px=um_per_px,
            tissue_mm2=round(tissue_share * area, 4),
            counts=counts,
            failure=_failure(counts, tissue_share, restricted, rest["plan"], rest["part"]),
            warnings=tuple(_warnings(counts, facts, um_per_px, rest)),
            **rest,
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    def to_json(self) -> str:
        """The report as text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> SlideReport:
        """What `to_dict` made, after a journey as JSON.

        Raises:
            TypeError: a field is missing or unknown.
        """
        known = {f.name for f in fields(cls)}
        if set(facts) != known:
            raise TypeError(f"a slide report has the fields {sorted(known)}, got {sorted(facts)}")
        return cls(
            **{
                **facts,
                "um_per_px": tuple(facts["um_per_px"]),
                "part": tuple(facts["part"]),
                "warnings": tuple(facts["warnings"]),
            }
        )

    def write(self, folder: Path, name: str, picture: RGB) -> tuple[Path, Path]:
        """Write `NAME.json` and `NAME.png`, each whole or not at all.

        Args:
            folder: Where to; made if missing.
            name: The source's id, not its file name.
            picture: What `draw` made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / f"{name}.json", folder / f"{name}.png"
        with replacing(paths[0]) as text, replacing(paths[1]) as image:
            text.write(self.to_json().encode())
            Image.fromarray(picture).save(image, "PNG")
        return paths


def _failure(
    counts: Mapping[str, int],
    tissue_share: float,
    restricted: bool,
    plan: Mapping[str, Any],
    part: Sequence[int],
) -> str | None:
    """Why nothing was kept."""
    if counts.get("kept") or part[1] > 1:
        return None
    total = sum(counts.values())
    side = plan["size"] * plan["um_per_px"]
    if total == 0:
        return f"no tile: the slide is smaller than one tile of {side:g} um"
    listed = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
    why = f"no tile out of {total:,} was kept: {listed}"
    if restricted and set(counts) == {"outside the region"}:
        return f"{why}; are the regions in pixels of level 0 of this slide?"
    if tissue_share < 0.01:
        return f"{why}; there is almost no tissue ({tissue_share:.2%} of the slide), empty glass?"
    return f"{why}; look at the picture, then at the thresholds"


def _warnings(
    counts: Mapping[str, int],
    facts: Mapping[str, Any],
    um_per_px: tuple[float, float],
    rest: Mapping[str, Any],
) -> list[str]:
    warnings = []
    own = facts["um_per_px"]
    if rest["um_per_px_origin"] == "manifest" and own is not None:
        ratio = um_per_px[0] / own[0]
        if not 0.95 <= ratio <= 1.05:
            warnings.append(
                f"the manifest's {um_per_px[0]:g} um per pixel was used; the file says {own[0]:g}"
            )
    if counts.get("damaged"):
        warnings.append(f"{counts['damaged']:,} tiles are damaged in the file and were left out")
    read = sum(
        counts.get(r, 0) for r in REASONS if r not in {"outside the region", "little tissue"}
    )
    if read and counts.get("out of focus", 0) > 0.3 * read:
        warnings.append("more than 30 % of the tiles with tissue are out of focus; scan it again?")
    if rest["pen_share"] > 0.005:
        warnings.append(f"{rest['pen_share']:.1%} of the slide is taken for pen marks")
    if rest["unstained"]:
        warnings.append(
            f"{rest['unstained']:,} tiles could not be stain-normalised and are as scanned"
        )
    return warnings


def draw(overview: RGB, boxes: Boxes, reasons: Sequence[Reason], size: tuple[int, int]) -> RGB:
    """The overview with the tiles coloured by what became of them, and a key below.

    Args:
        overview: The whole slide.
        boxes: Tiles in pixels of level 0.
        reasons: What became of each.
        size: Width and height of level 0.
    """
    longer = max(overview.shape[:2])
    shrink = longer / min(max(longer, SHORTEST), LONGEST)
    width, height = (max(1, round(side / shrink)) for side in overview.shape[1::-1])
    base = Image.fromarray(overview).resize((width, height)).convert("RGBA")
    layer = Image.new("RGBA", base.size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    scaled = boxes * np.array([width / size[0], height / size[1]] * 2)
    for (x, y, w, h), reason in zip(scaled.tolist(), reasons, strict=True):
        if reason == "little tissue":
            continue  # the glass itself says so
        corners = (x, y, max(x, x + w - 1), max(y, y + h - 1))
        pen.rectangle(corners, (*COLOURS[reason], 70), (*COLOURS[reason], 255))
    return _with_key(Image.alpha_composite(base, layer).convert("RGB"), Counter(reasons))


def _with_key(picture: Image.Image, counts: Mapping[str, int]) -> RGB:
    lines: list[Reason] = [reason for reason in REASONS if counts.get(reason)]
    out = Image.new(
        "RGB", (max(picture.width, 220), picture.height + 18 * len(lines) + 6), (255, 255, 255)
    )
    out.paste(picture, (0, 0))
    pen = ImageDraw.Draw(out)
    for at, reason in enumerate(lines):
        y = picture.height + 6 + 18 * at
        pen.rectangle((6, y, 18, y + 12), COLOURS[reason])
        pen.text((26, y), f"{reason}: {counts[reason]:,}", fill=(0, 0, 0))
    return np.asarray(out)
