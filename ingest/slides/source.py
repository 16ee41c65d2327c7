"""Whole slides as sources of a run: the task of a child, and its tiles as items."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from encoder.stains.normalisers import Normaliser
from ingest.sandbox import messages
from ingest.slides.grid import MicronsPerPixel, TilePixels, TilePlan
from ingest.slides.quality import SCORES, QualityLimits
from ingest.slides.tiling import SlideResult, TileBatch, as_tiles, tile_task
from ingest.sources.source import (
    ChildReader,
    Facts,
    Planned,
    Source,
    Summary,
    Taken,
    make_item,
    recipe_of,
)
from search.schemas.items import Box

SLIDES = frozenset(
    {".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".zvi", ".czi", ".dcm"}
)
"""Endings of files that are slides and nothing else."""
BATCH_BYTES = 16 << 20
"""Pixels of one batch of tiles."""
MOST_BATCH = 64
NOTE = re.compile(r"(\d{2,4}) px at ([\d.e-]+) um/px(?:, overlap ([\d.e-]+))?")
VERSION = 1
"""Counts up when the same slide and parameters would give other tiles."""


@dataclass(frozen=True, kw_only=True)
class SlideReader(ChildReader):
    """Reads a slide as tiles, in a child."""

    tiles: TilePlan = field(default_factory=TilePlan)
    """Which tiles."""
    limits: QualityLimits = field(default_factory=QualityLimits)
    """Which of them are dropped."""
    regions: str | None = None
    """GeoJSON text; tiles outside are dropped."""
    stain: Normaliser | None = None
    """Stain normalisation; `None` for none."""

    def recipe(self, facts: Facts) -> str:
        """See `ChildReader.recipe`."""
        stain = None if self.stain is None else self.stain.name
        how = [asdict(self.tiles), self.limits.to_json(), self.regions, stain]
        return recipe_of("tiles", VERSION, *how, facts)

    def job(self, path: Path, facts: Facts) -> messages.Task:
        """See `ChildReader.job`.

        Raises:
            StainError: normalisation of a Romanowsky stain.
        """
        tile_bytes = 3 * self.tiles.size**2
        return tile_task(
            path,
            self.tiles,
            um_per_px=facts.um_per_px,
            regions=self.regions,
            limits=self.limits,
            stain=self.stain,
            slide_stain=facts.stain,
            batch=max(1, min(MOST_BATCH, BATCH_BYTES // tile_bytes)),
        )

    def take(self, source: Source, facts: Facts, batch: messages.Batch) -> Taken:
        """See `ChildReader.take`."""
        match as_tiles(batch):
            case TileBatch() as tiles:
                scale = replace(
                    facts,
                    um_per_px=float(tiles.um_per_px),
                    um_per_px_origin=tiles.um_per_px_origin,
                )
                rows = zip(
                    tiles.boxes.tolist(), tiles.scores.tolist(), tiles.unstained, strict=True
                )
                planned = [
                    Planned(
                        make_item(source, scale, Box(x=x, y=y, w=w, h=h), "tile"),
                        self._notes(scores, bool(unstained)),
                    )
                    for (x, y, w, h), scores, unstained in rows
                ]
                return Taken(planned=planned, images=tiles.images)
            case SlideResult() as result:
                return Taken(summary=_summary(result))

    def _notes(self, scores: Sequence[float], unstained: bool) -> dict[str, str]:
        notes = {name: f"{score:.4g}" for name, score in zip(SCORES, scores, strict=True)}
        notes["tile"] = tile_note(self.tiles)
        if self.stain is not None:
            notes["stain normalisation"] = "failed, as scanned" if unstained else self.stain.name
        return notes


def _summary(result: SlideResult) -> Summary:
    report, picture = result.report, result.picture.copy()  # the child reuses this memory
    counts = ", ".join(f"{count:,} {why}" for why, count in report.counts.items()) or "no tile"
    return Summary(
        text=f"{counts}; tissue {report.tissue_mm2:g} mm2",
        warnings=report.warnings,
        failure=report.failure,
        write=lambda folder, name: report.write(folder, name, picture)[0],
    )


def tile_note(plan: TilePlan) -> str:
    """What a stored tile says of its plan: all that it takes to cut it again."""
    overlap = f", overlap {float(plan.overlap)!r}" if plan.overlap else ""
    return f"{int(plan.size)} px at {float(plan.um_per_px)!r} um/px{overlap}"


def noted_plan(note: str) -> TilePlan | None:
    """The plan that `tile_note` wrote down; `None` if it did not."""
    found = NOTE.fullmatch(note)
    if found is None:
        return None
    return TilePlan(
        size=TilePixels(int(found[1])),
        um_per_px=MicronsPerPixel(float(found[2])),
        overlap=float(found[3] or 0),
    )
