"""Whether maps of what a search looks at are true: five measures, beside random maps.

    python -m train.evaluation.faithful --data bccd --encoder hemaseek-s --images 50

The score is the mean cosine to the ten nearest images of the rest of the set, other groups alone.
Deletion and insertion (Petsiuk et al. 2018), faithfulness correlation (Bhatt et al. 2020),
monotonicity (Luss et al. 2021) and the pointing game (Zhang et al. 2018), where the object is the
middle of a crop whose context is known.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console

from encoder.contract import Encoder
from encoder.explain.causal import Hiding, colour_masks, feature_masks, points_at
from encoder.explain.correspondence import Grid
from search.evaluation.metrics import ends
from search.evaluation.splits import subset
from train.data import datasets
from train.data.datasets import Labelled
from train.evaluation.command import Scoring, config_of, status_of, write_json
from train.evaluation.vectors import open_encoder, vectors_of

NEAREST = 10
MEASURES = ("deletion", "insertion", "correlation", "monotonicity", "pointing")
CONTEXT = 1.5
"""Side of the crops of BCCD and attri over the box of the cell."""


class FaithfulConfig(Scoring):
    """Measure the causal maps of an encoder on a set, beside random maps."""

    data: str = "bccd"
    """A set, as `train.evaluation.run` names it; bccd and attri have boxes to point into."""
    encoder: str = "hemaseek-s"
    """A name, folder or timm source that the registry loads."""
    images: int = Field(default=50, ge=2)
    """How many are explained; each takes about two hundred embeddings."""
    seed: int = Field(default=0, ge=0)
    """Of the subset, of hidden sets, of random maps."""


def middle(grid: tuple[int, int], context: float = CONTEXT) -> NDArray[np.bool_]:
    """The places that a centred object covers in a crop of so much context."""
    rows, columns = grid
    half = 0.5 / context
    y = np.abs((np.arange(rows) + 0.5) / rows - 0.5) <= half
    x = np.abs((np.arange(columns) + 0.5) / columns - 0.5) <= half
    return np.asarray(y[:, None] & x[None])


def measured(
    hiding: Hiding, found: Grid, inside: NDArray[np.bool_] | None, seed: int
) -> list[float]:
    """The `MEASURES` of one map; NaN for pointing where no object is known."""
    ((deletion, insertion),) = hiding.areas(found)
    measured = hiding.faithful(found, seed=seed)
    pointing = float("nan") if inside is None else float(points_at(found, inside))
    return [deletion, insertion, measured.correlation, measured.monotonicity, pointing]


def explained(
    encoder: Encoder, labelled: Labelled, rows: Sequence[int], config: FaithfulConfig
) -> NDArray[np.float64]:
    """Images x (causal map, random map) x measures."""
    vectors = vectors_of(encoder, labelled, config.cache)
    framed = all(labelled.squares[row] is not None for row in rows) and labelled.name != "chula"
    rng = np.random.default_rng(config.seed)
    found = []
    for row, image in zip(rows, labelled.images(rows), strict=True):
        others = vectors[labelled.groups != labelled.groups[row]]
        near = others[np.argsort(-(others @ vectors[row]))[:NEAREST]].mean(axis=0)
        hiding = Hiding(encoder, image, lambda made, near=near: made @ near)  # type: ignore[misc]
        if encoder.card.patch_px is None:
            masks = colour_masks(hiding.image, hiding.grid)
        else:
            masks = feature_masks(encoder.tokens([hiding.image])[1][0])
        inside = middle(hiding.grid) if framed else None
        maps = (hiding.causal(masks), rng.normal(size=hiding.grid))
        found.append([measured(hiding, one, inside, config.seed) for one in maps])
    return np.array(found)


def run(config: FaithfulConfig, console: Console) -> dict[str, Any]:
    """Everything that the config names; prints a table and returns the record."""
    labelled = datasets.read(config.data, config.root)
    rows = subset(labelled.labels, labelled.groups, config.images, config.seed)[: config.images]
    encoder = open_encoder(config.encoder, config.seed, config.device)
    values = explained(encoder, labelled, rows.tolist(), config)
    rng = np.random.default_rng(config.seed)
    drawn = rng.integers(len(values), size=(1000, len(values)))
    record: dict[str, Any] = {"config": config.model_dump(mode="json"), "images": len(values)}
    console.out(
        f"\n### {labelled.name}, {encoder.card.id}: {len(values)} images\n", highlight=False
    )
    console.out("| measure | causal map | random map |\n|---|---|---|", highlight=False)
    for at, measure in enumerate(MEASURES):
        shown = []
        for which, name in enumerate(("causal", "random")):
            column = values[:, which, at]
            if np.isnan(column).all():
                shown.append("no object known")
                continue
            low, high = ends(column[drawn].mean(axis=1))
            record.setdefault(name, {})[measure] = [float(column.mean()), float(low), float(high)]
            shown.append(f"{column.mean():.3f} [{low:.3f}, {high:.3f}]")
        console.out(f"| {measure} | {' | '.join(shown)} |", highlight=False)
    if config.out:
        write_json(config.out, record)
    return record


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    config = config_of(FaithfulConfig, words, ())
    return status_of(lambda: run(config, Console()))


if __name__ == "__main__":
    sys.exit(main())
