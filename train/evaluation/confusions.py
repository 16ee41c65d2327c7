"""Which cells a search takes for which: counts, words, and pictures for a report folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.evaluation.splits import Rows
from train.data.datasets import Labelled

EACH = 8
"""Queries of a picture."""
PBC_WORDS = {
    "BA": "basophil",
    "BNE": "band neutrophil",
    "EO": "eosinophil",
    "ERB": "erythroblast",
    "LY": "lymphocyte",
    "MMY": "metamyelocyte",
    "MO": "monocyte",
    "MY": "myelocyte",
    "PLATELET": "platelet",
    "PMY": "promyelocyte",
    "SNE": "segmented neutrophil",
}
"""The codes of PBC."""


@dataclass(frozen=True)
class Confusion:
    """One kind of error."""

    truth: str
    predicted: str
    count: int
    of: int
    """Queries of the true class."""

    def words(self, names: Mapping[str, str] = PBC_WORDS) -> str:
        """`metamyelocyte taken for myelocyte: 41 of 193 (21 %)`."""
        truth, predicted = (
            names.get(self.truth, self.truth),
            names.get(self.predicted, self.predicted),
        )
        share = 100 * self.count / self.of
        return f"{truth} taken for {predicted}: {self.count} of {self.of} ({share:.0f} %)"


def commonest(
    truth: NDArray[np.integer], predicted: NDArray[np.integer], names: Sequence[str], top: int = 10
) -> list[Confusion]:
    """The commonest errors, the most frequent first; equal ones by name.

    Args:
        truth: n class numbers.
        predicted: n class numbers.
        names: Of the classes.
        top: At most so many; kinds that never occur are left out.
    """
    matrix = np.zeros((len(names), len(names)), np.int64)
    np.add.at(matrix, (truth, predicted), 1)
    support = matrix.sum(axis=1)
    kinds = [
        Confusion(names[a], names[b], int(matrix[a, b]), int(support[a]))
        for a in range(len(names))
        for b in range(len(names))
        if a != b and matrix[a, b]
    ]
    return sorted(kinds, key=lambda kind: (-kind.count, kind.truth, kind.predicted))[:top]


def sheets(
    folder: Path,
    labelled: Labelled,
    queries: Rows,
    predicted: NDArray[np.str_],
    near: NDArray[np.integer],
    kinds: Sequence[Confusion],
    *,
    px: int = 112,
) -> list[Path]:
    """One picture per kind of error: wrong queries at the left, what they were nearest to beside.

    For the eyes of whoever trains; the folder must be one that git ignores.

    Args:
        folder: Made if missing.
        labelled: The set.
        queries: m rows.
        predicted: m labels.
        near: m x k rows of their neighbours, nearest first.
        kinds: Which errors.
        px: Side of one cell in it.
    """
    from PIL import Image

    from encoder.image import resize

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in kinds:
        wrong = np.flatnonzero(
            (labelled.labels[queries] == kind.truth) & (predicted == kind.predicted)
        )[:EACH]
        lines = []
        for at in wrong.tolist():
            rows = [int(queries[at]), *near[at].tolist()]
            cells = [resize(image, px, "bilinear") for image in labelled.images(rows)]
            gap = np.full((px, 8, 3), 255, np.uint8)
            lines.append(np.concatenate([cells[0], gap, *cells[1:]], axis=1))
        if lines:
            written.append(folder / f"{kind.truth}-as-{kind.predicted}.png")
            Image.fromarray(np.concatenate(lines)).save(written[-1])
    return written
