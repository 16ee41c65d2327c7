"""Which cells a search takes for which: counts, words, and pictures for a report folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.evaluation.splits import Rows
from train.data.datasets import Labelled

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
    said: str
    count: int
    of: int
    """Cells of the true class that were asked."""

    def words(self, names: Mapping[str, str] = PBC_WORDS) -> str:
        """`metamyelocyte taken for myelocyte: 41 of 193 (21 %)`."""
        truth, said = names.get(self.truth, self.truth), names.get(self.said, self.said)
        share = 100 * self.count / self.of
        return f"{truth} taken for {said}: {self.count} of {self.of} ({share:.0f} %)"


def commonest(
    truth: NDArray[np.integer], said: NDArray[np.integer], names: Sequence[str], top: int = 10
) -> list[Confusion]:
    """The commonest errors, the most frequent first; equal ones by name.

    Args:
        truth: n class numbers.
        said: n class numbers.
        names: Of the classes.
        top: At most so many; kinds that never occur are left out.
    """
    matrix = np.zeros((len(names), len(names)), np.int64)
    np.add.at(matrix, (truth, said), 1)
    asked = matrix.sum(axis=1)
    kinds = [
        Confusion(names[a], names[b], int(matrix[a, b]), int(asked[a]))
        for a in range(len(names))
        for b in range(len(names))
        if a != b and matrix[a, b]
    ]
    return sorted(kinds, key=lambda kind: (-kind.count, kind.truth, kind.said))[:top]


def sheets(
    folder: Path,
    labelled: Labelled,
    asked: Rows,
    said: NDArray[np.str_],
    near: NDArray[np.integer],
    kinds: Sequence[Confusion],
    *,
    each: int = 8,
    px: int = 112,
) -> list[Path]:
    """One picture per kind of error: wrong queries at the left, what they were nearest to beside.

    For the eyes of whoever trains; the folder must be one that git ignores.

    Args:
        folder: Made if missing.
        labelled: The set.
        asked: m rows of the queries.
        said: m labels that were voted.
        near: m x k rows of their neighbours, nearest first.
        kinds: Which errors.
        each: Queries per picture.
        px: Side of one cell in it.
    """
    from PIL import Image

    from encoder.image import resize

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in kinds:
        wrong = np.flatnonzero((labelled.labels[asked] == kind.truth) & (said == kind.said))[:each]
        lines = []
        for at in wrong.tolist():
            rows = [int(asked[at]), *near[at].tolist()]
            cells = [resize(image, px, "bilinear") for image in labelled.images(rows)]
            gap = np.full((px, 8, 3), 255, np.uint8)
            lines.append(np.concatenate([cells[0], gap, *cells[1:]], axis=1))
        if lines:
            written.append(folder / f"{kind.truth}-as-{kind.said}.png")
            Image.fromarray(np.concatenate(lines)).save(written[-1])
    return written
