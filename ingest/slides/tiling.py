"""Slides to tiles: scale, grid, tissue, quality, stain, and a report, all inside of a child.

`tile_task` makes the task, a `ReaderPool` runs it, `as_tiles` turns what comes back into
`TileBatch`es and, last of all, one `SlideResult`::

    task = tile_task(path, TilePlan(), um_per_px=None)
    for batch in pool.read(task):
        match as_tiles(batch):
            case TileBatch() as tiles: ...    # tiles.images, tiles.boxes, tiles.scores
            case SlideResult() as result: ...  # result.report, result.picture, result.overview
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoder.contract import RGB
from encoder.image import MAX_PIXELS
from encoder.stains.normalisers import Normaliser, StainError
from ingest.sandbox import child
from ingest.sandbox.child import give_back, stack
from ingest.sandbox.messages import JSON, Batch, Piece, Refusal, Task
from ingest.slides import quality, tissue
from ingest.slides.base import MOST_DAMAGED, Slide, Tally
from ingest.slides.grid import (
    Boxes,
    Cut,
    MicronsPerPixel,
    TilePlan,
    boxes,
    check_scale,
    choose_level,
    grid,
    window,
)
from ingest.slides.jpeg_tiles import Damaged
from ingest.slides.quality import QualityLimits, Reason, Scores
from ingest.slides.regions import Regions
from ingest.slides.report import SlideReport, draw
from ingest.slides.slide import open_slide

OVERVIEW_UM = 8.0
"""Overviews have this scale in micrometres per pixel; those of large slides a coarser one."""
FINEST_OVERVIEW_UM = 4.0
SMALL_OVERVIEW = 1024
"""Overviews of small slides are finer, up to this side or scale, whichever comes first."""
OVERVIEW_SIDE = 3072
"""Longest side of an overview in pixels."""
MOST_PLACES = 1000
"""Places of tiles in one message."""

ScaleOrigin = Literal["file", "manifest"]


class NoScale(Refusal):
    """A slide without micrometres per pixel."""

    def __init__(self, found: str = "") -> None:
        says = f" (it says {found})" if found else ""
        super().__init__(
            f"the file does not say how many micrometres a pixel has{says}, and the objective's "
            "power is no scale; write um_per_px for it into the manifest"
        )


@dataclass(frozen=True, kw_only=True)
class TileBatch:
    """Tiles of one slide."""

    images: Sequence[RGB] | NDArray[np.uint8]
    """n x size x size x 3; valid until the next event of the pool."""
    boxes: Boxes
    """n x 4: left, top, width, height in pixels of level 0."""
    scores: Scores
    """n x 6, columns as in `quality.SCORES`."""
    um_per_px: MicronsPerPixel
    """Of level 0, the mean of x and y."""
    um_per_px_origin: ScaleOrigin
    """Where the scale was read."""
    unstained: NDArray[np.bool_]
    """n: tiles that the stain normalisation left as they were, because it failed on them."""


@dataclass(frozen=True, kw_only=True)
class SlideResult:
    """The end of a slide."""

    report: SlideReport
    overview: RGB
    """The slide at a coarse scale, without label or macro."""
    picture: RGB
    """The overview with every tile of the grid coloured by what became of it."""


def tile_task(
    path: Path,
    plan: TilePlan | None = None,
    *,
    um_per_px: float | None = None,
    regions: str | None = None,
    limits: QualityLimits | None = None,
    stain: Normaliser | None = None,
    slide_stain: str | None = None,
    batch: int = 64,
    part: tuple[int, int] = (0, 1),
    max_pixels: int = MAX_PIXELS,
) -> Task:
    """What a pool has to do to cut a slide into tiles.

    Args:
        path: The slide; for DICOM and MRXS the file that OpenSlide opens.
        plan: Tile size and scale, overlap, least tissue.
        um_per_px: Of level 0, from the manifest; goes before what the file says.
        regions: GeoJSON text in pixels of level 0; tiles whose centre is outside are dropped.
        limits: Thresholds of quality.
        stain: Normaliser to apply to each tile; `None` for none, the default.
        slide_stain: Stain of the slide, if known; a Romanowsky stain refuses `stain`.
        batch: Tiles per batch.
        part: `(i, n)` reads the i-th of n shares, so that n children can share one slide.
        max_pixels: Cap for plain images; slides are read piece by piece and need none.

    Raises:
        StainError: `stain` together with a Romanowsky `slide_stain`.
    """
    if stain is not None:
        stain.check(slide_stain)
    args = {
        "plan": asdict(plan or TilePlan()),
        "um_per_px": um_per_px,
        "regions": regions,
        "limits": (limits or QualityLimits()).to_json(),
        "stain": None if stain is None else stain.to_json(),
        "batch": batch,
        "part": list(part),
        "max_pixels": max_pixels,
    }
    return Task(reader="ingest.slides.tiling:tiles", source=str(path), args=args)


def as_tiles(batch: Batch) -> TileBatch | SlideResult:
    """The answer to `tile_task`, piece by piece."""
    facts = batch.facts
    if "report" in facts:
        report = SlideReport.from_json(facts["report"])
        return SlideResult(report=report, overview=batch.images[0], picture=batch.images[1])
    return TileBatch(
        images=batch.images,
        boxes=np.array(facts["boxes"], np.int64).reshape(-1, 4),
        scores=np.array(facts["scores"], np.float32).reshape(-1, len(quality.SCORES)),
        um_per_px=MicronsPerPixel(facts["um_per_px"]),
        um_per_px_origin=facts["um_per_px_origin"],
        unstained=np.array(facts["unstained"], bool),
    )


# ---------------------------------------------------------------- the child's side


@dataclass
class _Run:
    """What is found out about one slide on the way."""

    slide: Slide
    plan: TilePlan
    limits: QualityLimits
    scale: tuple[MicronsPerPixel, MicronsPerPixel]
    origin: ScaleOrigin
    cut: Cut
    starts: NDArray[np.float64]
    boxes: Boxes
    reasons: list[Reason] = field(default_factory=list)
    tissue: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    normaliser: Normaliser | None = None
    unstained: int = 0


def tiles(
    source: str,
    plan: JSON,
    um_per_px: float | None = None,
    regions: str | None = None,
    limits: JSON | None = None,
    stain: JSON | None = None,
    batch: int = 64,
    part: Sequence[int] = (0, 1),
    max_pixels: int = MAX_PIXELS,
    short_way: bool = True,
) -> Iterator[Piece]:
    """Reader: the tiles of a slide, then its report, overview and picture.

    Raises:
        Refusal: a slide without a scale or with one far too coarse, or too damaged.
    """
    area = None if regions is None else Regions.from_geojson(regions)
    slide = open_slide(Path(source), max_pixels, short_way=short_way)
    run = _prepare(slide, TilePlan(**plan), QualityLimits(**(limits or {})), um_per_px)
    run.normaliser = None if stain is None else Normaliser.from_json(stain)
    overview, found = yield from _looked_over(run)
    _choose(run, found.mask, area)
    mine = _share(run, part)
    yield from _read(run, np.flatnonzero(mine & (np.array(run.reasons) == "kept")), batch)
    reasons = [reason for reason, is_mine in zip(run.reasons, mine, strict=True) if is_mine]
    report = SlideReport.of(
        facts=asdict(slide.facts),
        plan=asdict(run.plan),
        limits=run.limits.to_json(),
        um_per_px=run.scale,
        um_per_px_origin=run.origin,
        level=run.cut.level,
        resampled=not run.cut.exact,
        tissue_share=found.share,
        pen_share=found.pen_share,
        reasons=reasons,
        restricted=area is not None,
        stain=None if run.normaliser is None else run.normaliser.name,
        unstained=run.unstained,
        part=(part[0], part[1]),
    )
    if slide.remark:
        report = replace(report, warnings=(*report.warnings, slide.remark))
    picture = draw(overview, run.boxes[mine], reasons, (slide.facts.width, slide.facts.height))
    slide.close()
    yield Piece(facts={"report": report.to_dict()}, images=[overview, picture])


def places(
    source: str, plan: JSON, um_per_px: float | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[Piece]:
    """Reader: where the tiles with enough tissue lie, by the overview alone; none is read.

    Raises:
        Refusal: a slide without a scale or with one far too coarse.
    """
    slide = open_slide(Path(source), max_pixels)
    run = _prepare(slide, TilePlan(**plan), QualityLimits(), um_per_px)
    _, found = yield from _looked_over(run)
    _choose(run, found.mask, None)
    kept = run.boxes[np.array(run.reasons) == "kept"]
    slide.close()
    for start in range(0, len(kept), MOST_PLACES):
        yield Piece(facts={"boxes": kept[start : start + MOST_PLACES].tolist()})


def _looked_over(run: _Run) -> Generator[Piece, None, tuple[RGB, tissue.Tissue]]:
    """The overview of a slide, and the tissue in it."""
    yield Piece(note="overview")
    overview = np.empty((0, 0, 3), np.uint8)
    for step in run.slide.overview(*_overview_size(run)):
        if isinstance(step, Piece):
            yield step
        else:
            overview = step
    scale = run.slide.facts.width * run.scale[0] / overview.shape[1]
    return overview, tissue.find_tissue(overview, scale)


def _prepare(slide: Slide, plan: TilePlan, limits: QualityLimits, um_per_px: float | None) -> _Run:
    """Scale, level and grid."""
    scale, cut = scale_and_cut(slide, plan, um_per_px)
    starts = grid(plan, cut, slide.facts.levels[cut.level])
    return _Run(
        slide=slide,
        plan=plan,
        limits=limits,
        scale=scale,
        origin="file" if um_per_px is None else "manifest",
        cut=cut,
        starts=starts,
        boxes=boxes(starts, cut, slide.downsample(cut.level)),
    )


def scale_and_cut(
    slide: Slide, plan: TilePlan, um_per_px: float | None
) -> tuple[tuple[MicronsPerPixel, MicronsPerPixel], Cut]:
    """The scale of level 0 along x and y, and how tiles are cut.

    Args:
        slide: An open slide.
        plan: Which tiles.
        um_per_px: Of level 0, from the manifest; goes before what the file says.

    Raises:
        Refusal: no scale, or one far too coarse.
    """
    scale = slide.facts.um_per_px
    if um_per_px is not None:
        given = check_scale(um_per_px, "the manifest's scale")
        scale = (given, given)
    if scale is None:
        raise NoScale(slide.no_scale)
    downsamples = [slide.downsample(level) for level in range(len(slide.facts.levels))]
    return scale, choose_level(plan, scale, [(x + y) / 2 for x, y in downsamples])


def _overview_size(run: _Run) -> tuple[int, int]:
    facts = run.slide.facts
    longest = max(facts.width, facts.height)
    small = max(FINEST_OVERVIEW_UM / max(run.scale), longest / SMALL_OVERVIEW)
    shrink = max(1.0, min(OVERVIEW_UM / max(run.scale), small), longest / OVERVIEW_SIDE)
    return max(1, round(facts.width / shrink)), max(1, round(facts.height / shrink))


def _choose(run: _Run, mask: tissue.Mask, area: Regions | None) -> None:
    """Which tiles are worth reading."""
    size = (run.slide.facts.width, run.slide.facts.height)
    run.tissue = tissue.shares(mask, run.boxes, size)
    inside = np.ones(len(run.boxes), bool) if area is None else area.hold(run.boxes)
    enough = run.tissue >= run.plan.min_tissue
    run.reasons = [
        "kept" if a and b else "little tissue" if a else "outside the region"
        for a, b in zip(inside.tolist(), enough.tolist(), strict=True)
    ]


def _share(run: _Run, part: Sequence[int]) -> NDArray[np.bool_]:
    """The stretch of the grid that belongs to one part; parts have equally many tiles to read."""
    number, of = part
    work = np.cumsum([reason == "kept" for reason in run.reasons], dtype=np.int64)
    if not len(work):
        return np.zeros(0, bool)
    cuts = np.minimum((np.maximum(work - 1, 0) * of) // max(int(work[-1]), 1), of - 1)
    return np.asarray(cuts == number)


def _read(run: _Run, wanted: NDArray[np.int64], batch: int) -> Iterator[Piece]:
    """Read, measure and judge tiles; pass on those that are kept."""
    tally = Tally()
    with ExitStack() as last:
        threads = None
        if child.threads() > 1:
            threads = last.enter_context(ThreadPoolExecutor(child.threads()))
        for start in range(0, len(wanted), batch):
            if threads is not None:
                some = run.starts[wanted[start : start + batch]].tolist()
                areas = [_area(run.slide, run.cut, run.plan.size, one)[0] for one in some]
                run.slide.ahead(run.cut.level, areas, threads)
            yield from _batch(run, wanted, start, batch, tally)
    if tally.damaged > MOST_DAMAGED * tally.tried:
        raise Refusal(f"{tally.damaged:,} of {tally.tried:,} tiles with tissue are damaged")


def _batch(
    run: _Run, wanted: NDArray[np.int64], start: int, batch: int, tally: Tally
) -> Iterator[Piece]:
    """One batch of them."""
    images = stack(min(batch, len(wanted) - start), run.plan.size, run.plan.size)
    numbers: list[int] = []
    for number in wanted[start : start + batch].tolist():
        try:
            cut_tile(run.slide, run.cut, run.starts[number].tolist(), images[len(numbers)])
        except Damaged:
            run.reasons[number] = "damaged"
            tally.add(True)
        else:
            numbers.append(number)
            tally.add(False)
    kept, scores = _judge(run, numbers, images)
    facts = {
        "boxes": run.boxes[kept].tolist(),
        "scores": scores,
        "um_per_px": sum(run.scale) / 2,
        "um_per_px_origin": run.origin,
        "unstained": [_stain(run, image) for image in images[: len(kept)]],
    }
    if kept:
        yield Piece(facts=facts, images=images[: len(kept)])
    else:
        give_back(images)
        yield Piece(note=f"tile {start} of {len(wanted)}")


def _judge(
    run: _Run, numbers: list[int], images: NDArray[np.uint8]
) -> tuple[list[int], list[list[float]]]:
    """Score the first images, write down what becomes of them, close the gaps of dropped ones."""
    kept: list[int] = []
    scores: list[list[float]] = []
    if not numbers:
        return kept, scores
    measured = np.column_stack([run.tissue[numbers], quality.measure(images[: len(numbers)])])
    for at, (number, row) in enumerate(zip(numbers, measured.round(4).tolist(), strict=True)):
        run.reasons[number] = quality.judge(row, run.limits)
        if run.reasons[number] != "kept":
            continue
        if at != len(kept):
            images[len(kept)] = images[at]
        kept.append(number)
        scores.append(row)
    return kept, scores


def _area(
    slide: Slide, cut: Cut, size: int, start: Sequence[float]
) -> tuple[tuple[int, int, int, int], tuple[float, float]]:
    """What is read for one tile in whole pixels of its level, and where in it the tile begins."""
    x, y = start
    if cut.exact:
        return (int(x), int(y), size, size), (0.0, 0.0)
    level_width, level_height = slide.facts.levels[cut.level]
    left, width, from_x = window(x, cut.width, level_width)
    top, height, from_y = window(y, cut.height, level_height)
    return (left, top, width, height), (from_x, from_y)


def cut_tile(slide: Slide, cut: Cut, start: Sequence[float], out: RGB) -> None:
    """One tile into `out` (size x size x 3), as it is or resampled.

    Args:
        slide: An open slide.
        cut: From which level, and how large there.
        start: Left and top in pixels of that level.
        out: Where it goes.

    Raises:
        Damaged: the bytes of that place are damaged.
    """
    (left, top, width, height), (from_x, from_y) = _area(slide, cut, out.shape[0], start)
    if cut.exact:
        slide.read(cut.level, left, top, width, height, out)
        return
    pixels = np.empty((height, width, 3), np.uint8)
    slide.read(cut.level, left, top, width, height, pixels)
    place = (from_x, from_y, min(from_x + cut.width, width), min(from_y + cut.height, height))
    size = (out.shape[1], out.shape[0])
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, box=place)
    out[...] = np.asarray(image)


def _stain(run: _Run, image: RGB) -> bool:
    """Normalise a tile in place; whether it had to be left as it was."""
    if run.normaliser is None:
        return False
    try:
        image[...] = run.normaliser.apply(image)
    except StainError:
        run.unstained += 1
        return True
    return False
