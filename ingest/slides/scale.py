"""What a slide says of its scale, and whether it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

from ingest.sandbox.messages import Refusal
from ingest.slides.grid import COARSEST, MicronsPerPixel

INCH_UM = 25_400.0
FINEST_SEEN = 0.05
"""No light microscope has finer pixels (um): a tag that says so is off by a power of ten."""
COARSEST_TAG = 10.0
"""A resolution tag coarser than this (um) is one of a screen or a printer (2,540 dpi), no scale."""
PRINTED = (72, 96, 100)
"""Whole multiples of so many dots per inch are printers' resolutions, if coarser than `FROM_UM`."""
FROM_UM = 2.0
UNITS_UM = {"nm": 1e-3, "\u00b5m": 1.0, "\u03bcm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
"""Micrometres of the units that OME names; others (pixel, reference frame) are no lengths."""
Scale = tuple[MicronsPerPixel, MicronsPerPixel]


def said_scale(properties: Mapping[str, str]) -> tuple[Scale | None, str]:
    """Micrometres per pixel in the properties that OpenSlide gives, or why they are not believed.

    Returns:
        The scale along x and y, or `None`; and what was found and not believed, in words.

    Raises:
        Refusal: x and y contradict each other.
    """
    import openslide

    x = positive(properties.get(openslide.PROPERTY_NAME_MPP_X))
    y = positive(properties.get(openslide.PROPERTY_NAME_MPP_Y))
    unit = {"inch": INCH_UM, "centimeter": 10_000.0}.get(properties.get("tiff.ResolutionUnit", ""))
    tags = [positive(properties.get(f"tiff.{axis}Resolution")) for axis in "XY"]
    tagged = [unit / tag for tag in tags if tag and unit]
    if len(tagged) == 2 and (
        (x is None and y is None) or (x, y) == (_near(x, tagged[0]), _near(y, tagged[1]))
    ):
        return believed(tagged[0], tagged[1], from_tags=True)
    return believed(x, y)


def believed(
    x: float | None, y: float | None, *, from_tags: bool = False
) -> tuple[Scale | None, str]:
    """A scale along x and y if it can be one of a light microscope; see `said_scale`.

    Args:
        x: Micrometres per pixel across; `None` where nothing is said.
        y: The same down.
        from_tags: Whether it is a TIFF resolution, which converters and printers set too.

    Raises:
        Refusal: x and y contradict each other.
    """
    x, y = x or y, y or x
    if x is None or y is None:
        return None, ""
    if min(x, y) < FINEST_SEEN:
        return None, f"{min(x, y):.3g} um per pixel, finer than light can resolve"
    if max(x, y) > (COARSEST_TAG if from_tags else COARSEST) or (from_tags and _printed(x)):
        return None, f"{INCH_UM / x:.0f} dots per inch, which is of a screen or a printer"
    if max(x, y) / min(x, y) > 1.25:
        raise Refusal(
            f"the file says {x:.4g} um per pixel across and {y:.4g} down, which no scanner does; "
            "write um_per_px for it into the manifest"
        )
    return (MicronsPerPixel(x), MicronsPerPixel(y)), ""


def ome_scale(description: str) -> tuple[Scale | None, str]:
    """PhysicalSizeX and Y of the first image of an OME description; see `said_scale`.

    Raises:
        Refusal: they contradict each other.
    """
    try:
        root = ElementTree.fromstring(description)  # noqa: S314 (tifffile has parsed it already)
    except ElementTree.ParseError:
        return None, ""
    pixels = next((one for one in root.iter() if one.tag.endswith("}Pixels")), None)
    if pixels is None:
        return None, ""
    sides = []
    for axis in "XY":
        unit = UNITS_UM.get(pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m"))
        size = positive(pixels.get(f"PhysicalSize{axis}"))
        sides.append(size * unit if size and unit else None)
    return believed(*sides)


def positive(text: str | None) -> float | None:
    """A positive finite number, or nothing."""
    try:
        value = float(text) if text is not None else 0.0
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def _near(value: float | None, other: float) -> float | None:
    """The value where it is the other, but for rounding; else `None`, which equals no value."""
    return value if value is not None and abs(value / other - 1) < 1e-3 else float("nan")


def _printed(um: float) -> bool:
    dots = INCH_UM / um
    return um >= FROM_UM and any(
        abs(dots / step - round(dots / step)) < 2e-3 and round(dots / step) for step in PRINTED
    )
