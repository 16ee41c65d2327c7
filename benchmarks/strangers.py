"""How well queries that are no cells, or cells of another kind, are told from a collection's own.

HEMASEEK_DATA=... python benchmarks/strangers.py [--encoder NAME]

For each library and each kind of stranger: AUROC of the distance of the 10th neighbour (the score
of before) and of the residual (`search.votes.familiarity`), and the share of the strangers beyond
the residual of the most unusual hundredth of the library's own cells.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from encoder.contract import RGB, Encoder, Vectors
from encoder.image import read_rgb
from encoder.registry import default_encoder, load
from ingest.layouts.known import scan
from ingest.layouts.scan import Options
from ingest.sources.source import Source
from search.settings import Settings
from search.votes.familiarity import fitted

K = 10
SETS = {"pbc": ("pbc/cells", "labels"), "bmc": ("bmc/cells", "labels"), "bccd": ("bccd", None)}
SETS["chula"] = ("chula", None)
LIBRARIES = {
    "mixed (PBC, bmc, BCCD, Chula)": ("pbc", "bmc", "bccd", "chula"),
    "white cells (PBC, bmc)": ("pbc", "bmc"),
    "red cells (Chula)": ("chula",),
}


@dataclass(frozen=True)
class Cells:
    """Cells of one set: one row, and one source, each."""

    vectors: Vectors
    sources: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default=default_encoder())
    parser.add_argument("--each", type=int, default=500, help="cells of each set")
    asked = parser.parse_args()
    data = Settings().data
    if data is None:
        raise SystemExit("set HEMASEEK_DATA to the folder of real cells")
    encoder, rng = load(asked.encoder), np.random.default_rng(0)
    sets = {name: cells_of(data, name, encoder, asked.each, rng) for name in SETS}
    fixed = {kind: embedded(encoder, images) for kind, images in strangers(data, rng)}
    print(f"{encoder.card.id}, {asked.each} cells of each set\n")
    print("| library | stranger | AUROC before | AUROC | told |\n|---|---|---|---|---|")
    for library, names in LIBRARIES.items():
        kinds = dict(fixed)
        if "chula" not in names:
            kinds["red cells (Chula)"] = sets["chula"].vectors
        if "pbc" not in names:
            kinds["white cells (PBC)"] = sets["pbc"].vectors
        for line in measured([sets[name] for name in names], kinds):
            print(f"| {library} | {line} |")


def measured(parts: list[Cells], kinds: dict[str, Vectors]) -> Iterator[str]:
    """A line of the table for each kind: half of the library's sources are held out as its own."""
    rows = np.concatenate([part.vectors for part in parts])
    sources = np.array([source for part in parts for source in part.sources])
    held = np.array([int(source[:8], 16) % 2 == 0 for source in sources])
    inside = rows[~held]
    familiar = fitted(inside, np.unique(sources[~held], return_inverse=True)[1])
    assert familiar is not None
    own = (tenth(rows[held], inside), familiar.residual(rows[held]))
    yield f"its own, held out | | | {(own[1] > familiar.far).mean():.0%}"
    for kind, vectors in kinds.items():
        came = (tenth(vectors, inside), familiar.residual(vectors))
        truth = np.r_[np.zeros(len(own[0])), np.ones(len(vectors))]
        before, after = (roc_auc_score(truth, np.r_[a, b]) for a, b in zip(own, came, strict=True))
        yield f"{kind} | {before:.3f} | {after:.3f} | {(came[1] > familiar.far).mean():.0%}"


def tenth(queries: Vectors, references: Vectors) -> np.ndarray:
    """1 - cosine of the 10th neighbour."""
    return 1 - np.sort(queries @ references.T, axis=1)[:, -K]


def cells_of(data: Path, name: str, encoder: Encoder, most: int, rng: np.random.Generator) -> Cells:
    """Cells of a set, drawn at random as an ingest would cut them."""
    folder, layout = SETS[name]
    tasks = scan(data / folder, layout, Options(dataset=name)).tasks
    images: list[RGB] = []
    sources: list[str] = []
    for at in rng.permutation(len(tasks)):
        source = Source(tasks[at].path, name)
        planned = tasks[at].reader.plan(source, tasks[at].facts).planned[:20]
        images += tasks[at].reader.cut(source, planned)
        sources += [one.item.source for one in planned]
        if len(images) >= most:
            break
    return Cells(embedded(encoder, images[:most]), sources[:most])


def strangers(data: Path, rng: np.random.Generator) -> Iterator[tuple[str, list[RGB]]]:
    """Pictures that show no cell, by kind."""
    tissue = sorted((data / "lc25000").rglob("*.jp*g"))
    chosen = [tissue[at] for at in rng.permutation(len(tissue))[:150]]
    yield "H&E tissue", [read_rgb(path.read_bytes(), name=path.name) for path in chosen]
    sides = rng.integers(32, 300, 40)
    glass = [rng.integers(150, 256, 3) + rng.normal(0, rng.uniform(0, 6), (n, n, 3)) for n in sides]
    yield "blank", [one.clip(0, 255).astype(np.uint8) for one in glass]
    yield "noise", [rng.integers(0, 256, (n, n, 3), dtype=np.uint8) for n in sides]
    yield "1 x 1 pixel", [rng.integers(0, 256, (1, 1, 3), dtype=np.uint8) for _ in range(40)]


def embedded(encoder: Encoder, images: list[RGB]) -> Vectors:
    """Vectors of pictures, in small batches."""
    parts = [encoder.embed(images[at : at + 32]) for at in range(0, len(images), 32)]
    return np.concatenate(parts)


if __name__ == "__main__":
    main()
