"""Whole slides, opened in a child: what they say of themselves, and their pixels by level.

`describe_task` says what a file is; `ingest.slides.tiling` cuts it into tiles. Of what a slide says
about itself only `SlideFacts` leaves the child. Label and macro images are never opened.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoder.contract import RGB
from encoder.image import MAX_PIXELS, NotAnImage, UnclearImage, decode
from ingest.sandbox.messages import Batch, Piece, Refusal, Task
from ingest.slides import jpeg_tiles as direct
from ingest.slides.grid import COARSEST, FINEST, MicronsPerPixel, SlidePixels

BLOCK = 2048
"""Side of the pieces in which a level is read for an overview, where there is no short way."""
MOST_DAMAGED = 0.5
"""A slide of which a larger share is damaged is refused."""
ENOUGH_DAMAGED = 24
"""So many damaged places are enough to judge by: each may cost a second to get over."""
UNREADABLE = (213, 94, 0)
"""Shown in overviews where the file is damaged; taken for tissue, so that tiles there are tried."""
MAX_SIDE = 4_000_000
"""A slide with a longer side than this has a lying header."""
OPENSLIDE_CACHE = 64 * 1024 * 1024
KEPT_OPEN = 3
"""Slides that a child keeps open."""
SCREEN_DPI_UM = 50.0
"""A resolution tag in inches coarser than this is a screen default such as 72 dpi, no scale."""


@dataclass(frozen=True, kw_only=True)
class SlideFacts:
    """All that leaves the child about a slide: an allow-list, nothing that names anybody."""

    vendor: str
    """The layout as OpenSlide names it, or `plain` for an image that Pillow reads."""
    reader: Literal["openslide", "direct", "plain"]
    """What fetches the pixels."""
    width: SlidePixels
    """Of level 0."""
    height: SlidePixels
    """Of level 0."""
    levels: tuple[tuple[int, int], ...]
    """Width and height of each level, finest first."""
    um_per_px: tuple[MicronsPerPixel, MicronsPerPixel] | None
    """Of level 0 along x and y, as the file says; `None` where it does not."""
    objective: float | None
    """Power of the objective, for display only: no scale is taken from it."""

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> SlideFacts:
        """What `asdict` made, after a journey as JSON."""
        scale = facts["um_per_px"]
        return cls(
            **{
                **facts,
                "levels": tuple((int(w), int(h)) for w, h in facts["levels"]),
                "um_per_px": None if scale is None else (scale[0], scale[1]),
            }
        )


def describe_task(path: Path, max_pixels: int = MAX_PIXELS) -> Task:
    """What a pool has to do to say what a file is: one batch, read by `as_facts`."""
    return Task(
        reader="ingest.slides.slide:describe", source=str(path), args={"max_pixels": max_pixels}
    )


def as_facts(batch: Batch) -> SlideFacts:
    """The answer to `describe_task`; vendor `plain` means that OpenSlide does not take it."""
    return SlideFacts.from_json(batch.facts)


# ---------------------------------------------------------------- the child's side


class Tally:
    """Counts damaged reads, so that a file that is damaged all over does not take for ever."""

    def __init__(self) -> None:
        self.tried = 0
        self.damaged = 0

    def add(self, damaged: bool) -> None:
        """Count one read.

        Raises:
            Refusal: more than `MOST_DAMAGED` of at least `ENOUGH_DAMAGED` reads were damaged.
        """
        self.tried += 1
        self.damaged += damaged
        if self.damaged >= ENOUGH_DAMAGED and self.damaged > MOST_DAMAGED * self.tried:
            raise Refusal(
                f"{self.damaged:,} of the first {self.tried:,} places looked at are damaged, "
                "so the rest was not read"
            )


class Slide:
    """An open slide. Rectangles are given in pixels of their level."""

    facts: SlideFacts
    remark: str = ""
    """What a person should know of how it is decoded."""

    def downsample(self, level: int) -> tuple[float, float]:
        """Pixels of level 0 per pixel of a level, along x and y."""
        width, height = self.facts.levels[level]
        return self.facts.width / width, self.facts.height / height

    def read(self, level: int, x: int, y: int, width: int, height: int, out: RGB) -> None:
        """Read a rectangle within a level into `out` (height x width x 3).

        Raises:
            Damaged: the bytes of that place are damaged; other places may be read on.
        """
        raise NotImplementedError

    def ahead(
        self,
        level: int,
        rectangles: Sequence[tuple[int, int, int, int]],
        threads: ThreadPoolExecutor,
    ) -> None:
        """A hint that some rectangles (left, top, width, height) are read next."""

    def overview(self, width: int, height: int) -> Iterator[Piece | RGB]:
        """The whole slide in a given size; yields signs of life, and the picture last."""
        level = self._overview_level(width)
        level_width, level_height = self.facts.levels[level]
        picture, tally = np.full((height, width, 3), 255, np.uint8), Tally()
        for top in range(0, level_height, BLOCK):
            yield Piece(note=f"overview, row {top} of {level_height}")
            for left in range(0, level_width, BLOCK):
                w, h = min(BLOCK, level_width - left), min(BLOCK, level_height - top)
                block = np.empty((h, w, 3), np.uint8)
                try:
                    self.read(level, left, top, w, h, block)
                    tally.add(False)
                except direct.Damaged:
                    block[...] = UNREADABLE
                    tally.add(True)
                _paste(picture, block, left, top, (level_width, level_height))
        yield picture

    def _overview_level(self, width: int) -> int:
        enough = [i for i, (w, _) in enumerate(self.facts.levels) if w >= width]
        return enough[-1] if enough else 0

    def close(self) -> None:
        """Let go of the file."""


class OpenSlideSlide(Slide):
    """A slide that OpenSlide opens, with the direct way where there is one."""

    def __init__(self, path: Path, *, short_way: bool = True) -> None:
        import openslide

        self._path = path
        self._fd = -1
        self._slide = self._open()
        properties = self._slide.properties
        vendor = str(properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"))
        self._direct = self._levels(vendor) if short_way else {}
        self.facts = SlideFacts(
            vendor=vendor[:40],
            reader="direct" if 0 in self._direct else "openslide",
            width=SlidePixels(self._slide.dimensions[0]),
            height=SlidePixels(self._slide.dimensions[1]),
            levels=tuple(self._slide.level_dimensions),
            um_per_px=_scale_of(properties),
            objective=_number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
        )
        if max(self.facts.width, self.facts.height) > MAX_SIDE:
            raise Refusal(
                f"the header says {self.facts.width:,} x {self.facts.height:,} pixels, more than "
                f"any slide has ({MAX_SIDE:,} a side); the file is damaged"
            )

    def _open(self) -> Any:
        import openslide

        slide = openslide.OpenSlide(str(self._path))
        slide.set_cache(openslide.OpenSlideCache(OPENSLIDE_CACHE))
        return slide

    def _levels(self, vendor: str) -> dict[int, direct.DirectLevel]:
        """The levels that can be read directly, by the number that OpenSlide gives them."""
        if vendor not in direct.VENDORS:
            return {}
        by_size: dict[tuple[int, int], list[direct.LevelIndex]] = {}
        for level in direct.index(self._path):
            by_size.setdefault((level.width, level.height), []).append(level)
        self._fd = os.open(self._path, os.O_RDONLY)
        found = {}
        for number, size in enumerate(self._slide.level_dimensions):
            if len(by_size.get(size, [])) == 1:  # two of one size: which is it? leave it
                short = direct.DirectLevel(self._fd, by_size[size][0])
                if short.plain():
                    found[number] = short
        return found

    def read(self, level: int, x: int, y: int, width: int, height: int, out: RGB) -> None:
        """As for any slide."""
        if level in self._direct:
            self._direct[level].read(x, y, width, height, out)
            return
        import openslide

        down_x, down_y = self.downsample(level)
        place = (round(x * down_x), round(y * down_y))
        try:
            rgba = np.asarray(self._slide.read_region(place, level, (width, height)))
        except openslide.OpenSlideError as error:
            self._slide.close()  # an error sticks to its handle
            self._slide = self._open()
            raise direct.Damaged("OpenSlide cannot read a part of the slide") from error
        on_white(rgba, out)

    def ahead(
        self,
        level: int,
        rectangles: Sequence[tuple[int, int, int, int]],
        threads: ThreadPoolExecutor,
    ) -> None:
        """Decode for them with many threads, where there is the direct way."""
        if level in self._direct:
            self._direct[level].ahead(rectangles, threads)

    def overview(self, width: int, height: int) -> Iterator[Piece | RGB]:
        """As for any slide, but JPEG tiles are shrunk while they are decoded."""
        level = self._overview_level(width)
        if level not in self._direct:
            yield from super().overview(width, height)
            return
        source = self._direct[level]
        size = self.facts.levels[level]
        factor = max(f for f in (1, 2, 4, 8) if f * max(width, 1) <= max(size[0], width))
        picture, tally = np.full((height, width, 3), 255, np.uint8), Tally()
        for row in range(source.level.rows):
            yield Piece(note=f"overview, row {row} of {source.level.rows}")
            for column in range(source.level.columns):
                try:
                    tile = source.small(row, column, factor)
                    tally.add(False)
                except direct.Damaged:
                    tile = np.full((8, 8, 3), UNREADABLE, np.uint8)
                    tally.add(True)
                left, top = column * source.level.tile_width, row * source.level.tile_height
                w = min(source.level.tile_width, size[0] - left)
                h = min(source.level.tile_height, size[1] - top)
                inside = tile[: max(1, h // factor), : max(1, w // factor)]
                _paste(picture, inside, left, top, size, (w, h))
        yield picture

    def close(self) -> None:
        """Let go of the file."""
        self._slide.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PlainSlide(Slide):
    """An image that OpenSlide does not take, held in memory under a pixel cap."""

    def __init__(self, path: Path, max_pixels: int) -> None:
        decoded = decode(path, name="the image", max_pixels=max_pixels)
        self._image, self.remark = decoded.pixels, decoded.remark
        height, width = self._image.shape[:2]
        self.facts = SlideFacts(
            vendor="plain",
            reader="plain",
            width=SlidePixels(width),
            height=SlidePixels(height),
            levels=((width, height),),
            um_per_px=None,
            objective=None,
        )

    def read(self, level: int, x: int, y: int, width: int, height: int, out: RGB) -> None:
        """As for any slide."""
        out[...] = self._image[y : y + height, x : x + width]


def open_slide(path: Path, max_pixels: int = MAX_PIXELS, *, short_way: bool = True) -> Slide:
    """Open a slide, or a plain image as a slide of one level. For children only.

    Raises:
        Refusal: no slide and no image, or a header that lies.
    """
    import openslide

    if not path.exists():
        raise FileNotFoundError(path.name)
    if openslide.OpenSlide.detect_format(str(path)) is not None:
        try:
            return OpenSlideSlide(path, short_way=short_way)
        except openslide.OpenSlideError as error:
            raise Refusal("OpenSlide knows its format but cannot open it: it is damaged") from error
    if path.is_dir():
        raise Refusal("a folder is no slide; name the file in it that OpenSlide opens")
    try:
        return PlainSlide(path, max_pixels)
    except UnclearImage:
        raise
    except NotAnImage as error:
        raise Refusal(
            "it is neither a slide that OpenSlide reads nor a complete image; accepted are SVS, "
            "TIFF, NDPI, MRXS, SCN, BIF, VMS, SVSLIDE, ZVI, DICOM, and PNG, JPEG, BMP, WebP"
        ) from error


_OPEN: OrderedDict[tuple[object, ...], Slide] = OrderedDict()


def kept_open(source: str, stamp: Sequence[int]) -> Slide:
    """An open slide that stays open for the next question while its file is the same.

    Args:
        source: Path of the file.
        stamp: Its size in bytes and its time of change in nanoseconds.

    Raises:
        Refusal: the file was changed, or is no slide and no image.
    """
    key = (source, *stamp)
    if key in _OPEN:
        _OPEN.move_to_end(key)
        return _OPEN[key]
    if [Path(source).stat().st_size, Path(source).stat().st_mtime_ns] != list(stamp):
        raise Refusal("the file was changed in the meantime")
    while len(_OPEN) >= KEPT_OPEN:
        _OPEN.popitem(last=False)[1].close()
    _OPEN[key] = open_slide(Path(source))
    return _OPEN[key]


def on_white(rgba: NDArray[np.uint8], out: RGB) -> None:
    """Lay pixels with transparency on white; places that were not scanned are transparent."""
    alpha = rgba[..., 3:]
    if int(alpha.min(initial=255)) == 255:
        out[...] = rgba[..., :3]
        return
    wide = rgba[..., :3].astype(np.uint16) * alpha + np.uint16(255) * (255 - alpha)
    out[...] = (wide + 127) // 255


def describe(source: str, max_pixels: int = MAX_PIXELS) -> Iterator[Piece]:
    """Reader: what a file is."""
    slide = open_slide(Path(source), max_pixels)
    yield Piece(facts=asdict(slide.facts))
    slide.close()


def _paste(
    picture: RGB,
    block: RGB,
    left: int,
    top: int,
    size: tuple[int, int],
    covers: tuple[int, int] | None = None,
) -> None:
    """Lay a block of a level, which covers so many of its pixels, into a smaller picture."""
    w, h = covers or (block.shape[1], block.shape[0])
    x0, x1 = (round(x * picture.shape[1] / size[0]) for x in (left, left + w))
    y0, y1 = (round(y * picture.shape[0] / size[1]) for y in (top, top + h))
    if x1 <= x0 or y1 <= y0:
        return
    if block.shape[:2] != (y1 - y0, x1 - x0):
        image = Image.fromarray(block)
        block = np.asarray(image.resize((x1 - x0, y1 - y0), Image.Resampling.BOX))
    picture[y0:y1, x0:x1] = block


def _scale_of(
    properties: Mapping[str, str],
) -> tuple[MicronsPerPixel, MicronsPerPixel] | None:
    """Micrometres per pixel as the file says; `None` where it says nothing believable."""
    import openslide

    x = _number(properties.get(openslide.PROPERTY_NAME_MPP_X))
    y = _number(properties.get(openslide.PROPERTY_NAME_MPP_Y))
    if x is None and y is None and properties.get("tiff.ResolutionUnit") == "inch":
        per_inch = [_number(properties.get(f"tiff.{axis}Resolution")) for axis in "XY"]
        inches = [25_400 / n for n in per_inch if n and 25_400 / n <= SCREEN_DPI_UM]
        x, y = inches if len(inches) == 2 else (None, None)
    x, y = x or y, y or x
    if x is None or y is None or not all(FINEST <= side <= COARSEST for side in (x, y)):
        return None
    if max(x, y) / min(x, y) > 1.25:
        raise Refusal(
            f"the file says {x:.4g} um per pixel across and {y:.4g} down, which no scanner does; "
            "write um_per_px for it into the manifest"
        )
    return MicronsPerPixel(x), MicronsPerPixel(y)


def _number(text: str | None) -> float | None:
    """A positive finite number, or nothing."""
    try:
        value = float(text) if text is not None else 0.0
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
