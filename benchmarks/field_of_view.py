"""What an encoder's field of view is worth: one cell in narrow and wide pictures, scales that are
wrong, and collections of which a part has a scale.

HEMASEEK_DATA=... python benchmarks/field_of_view.py [--encoder NAME] [--index 1500] [--ask 400]

The index is of PBC's training cells, the queries of its held-out quarter (34.2 micrometres wide by
their red cells), and of BCCD, whose fields' scale is estimated one by one. Pictures are cut as an
ingest and a search cut them (`encoder.field_of_view`), whatever the encoder's card says.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB, Encoder, Vectors
from encoder.field_of_view import USUAL, looked_at
from encoder.image import read_rgb
from encoder.registry import default_encoder, load
from ingest.smears.finders import scale_of_picture
from search.evaluation.metrics import confusion, scores
from search.library.sources import crop
from search.neighbours import exact
from search.schemas.items import Box
from search.settings import Settings
from search.votes.knn import votes
from train.data import datasets
from train.shipped.data import held_out
from train.shipped.labels import shared

K, PBC_UM = 20, 34.2 / 224
NARROW, WIDE = 1.5, 2.6


class Index:
    """Cells with labels, and how they vote."""

    def __init__(self, vectors: Vectors, labels: NDArray[np.str_]) -> None:
        self.vectors = vectors
        self.names, self._kinds = np.unique(labels, return_inverse=True)

    def said(self, rows: Vectors) -> NDArray[np.int64]:
        """The first label of each row's vote."""
        near, near_scores = exact.search(rows, self.vectors, K)
        return votes(self._kinds[near], near_scores, len(self.names), "uniform").first

    def score(self, rows: Vectors, labels: NDArray[np.str_]) -> str:
        """Weighted F1 and balanced accuracy."""
        true = np.searchsorted(self.names, labels)
        told = scores(confusion(true, self.said(rows), len(self.names)))
        return f"{100 * told['weighted_f1']:.1f} / {100 * told['balanced_accuracy']:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default=default_encoder())
    parser.add_argument("--index", type=int, default=1500, help="cells of PBC in the index")
    parser.add_argument("--ask", type=int, default=400, help="queries of each set")
    asked = parser.parse_args()
    data = Settings().data
    if data is None:
        raise SystemExit("set HEMASEEK_DATA to the folder of real cells")
    encoder, rng = load(asked.encoder), np.random.default_rng(0)
    print(f"{encoder.card.id}, {asked.index} cells of PBC in the index")
    cells = datasets.pbc(data / "pbc")
    kept = held_out(cells)
    index = drawn(rng, np.flatnonzero(~kept), asked.index)
    rows = drawn(rng, np.flatnonzero(kept), asked.ask)
    both = Of(encoder, list(cells.images(index))), Of(encoder, list(cells.images(rows)))
    at_home(*both, cells.labels[index], cells.labels[rows], rng)
    abroad(encoder, both[0], cells.labels[index], datasets.bccd(data / "bccd"), asked.ask)


class Of:
    """PBC pictures, whole and cut to the field of view."""

    def __init__(self, encoder: Encoder, images: Sequence[RGB]) -> None:
        self.encoder, self.images = encoder, images
        self.whole = embedded(encoder, images)
        self.cut = self.at(1.0)

    def at(self, wrong: float, span: float = np.inf, *, pad: bool = False) -> Vectors:
        """Cut by a scale that is wrong by a factor, from pictures of `span` micrometres at most."""
        shown = [
            looked_at(middle(image, span / PBC_UM), USUAL, PBC_UM * wrong) for image in self.images
        ]
        if pad:
            shown = [padded(image, USUAL.white / PBC_UM) for image in shown]
        return embedded(self.encoder, shown)


def at_home(
    references: Of,
    queries: Of,
    known: NDArray[np.str_],
    truth: NDArray[np.str_],
    rng: np.random.Generator,
) -> None:
    """PBC against itself: what is cut where, and what if the scale is wrong."""
    third, also = rng.random(len(known)) < 1 / 3, rng.random(len(truth)) < 1 / 3
    mixed = np.where(third[:, None], references.cut, references.whole)
    for name, vectors in (("whole", references.whole), ("cut", references.cut), ("third", mixed)):
        index = Index(vectors, known)
        parts = {"whole": queries.whole, "cut": queries.cut}
        parts["third"] = np.where(also[:, None], queries.cut, queries.whole)
        for other, rows in parts.items():
            print(f"PBC index {name}, queries {other}: {index.score(rows, truth)}")
    index = Index(references.cut, known)
    first = index.said(queries.cut)
    for wrong in (0.75, 1.33):
        same = (index.said(queries.at(wrong)) == first).mean()
        print(f"scale wrong by {wrong}: label stays {same:.1%}")
    for span in (15.0, 18.0, 21.0):
        for pad in (False, True):
            rows = queries.at(1.0, span, pad=pad)
            told = f"{'padded with glass' if pad else 'whole'}: {index.score(rows, truth)}"
            print(f"picture of {span:g} um, {told}, {agreement(rows, queries.cut, index)}")


def abroad(
    encoder: Encoder,
    references: Of,
    known: NDArray[np.str_],
    cells: datasets.Labelled,
    most: int,
) -> None:
    """BCCD's boxes, 1.5 and 2.6 times their side, with the scale of their field estimated."""
    crops: dict[float, list[RGB]] = {NARROW: [], WIDE: []}
    shown: dict[float, list[RGB]] = {NARROW: [], WIDE: []}
    labels, spans = [], []
    rows = np.flatnonzero(
        np.isin([shared(one) for one in cells.labels], [shared(k) for k in known])
    )
    for path, square, label in list(zip(cells.paths, cells.squares, cells.labels, strict=True))[
        :most
    ]:
        image = read_rgb(path)
        found = scale_of_picture(image)
        if square is None or found is None:
            continue
        labels.append(shared(label))
        x, y, side = square
        spans.append(side / NARROW * found[0])
        for share in crops:
            box = round(side / NARROW * share)
            at = Box(x=round(x + (side - box) / 2), y=round(y + (side - box) / 2), w=box, h=box)
            crops[share].append(crop(image, at))
            shown[share].append(looked_at(crops[share][-1], USUAL, found[0]))
    truth = np.array(labels)
    print(
        f"BCCD: {len(truth)} of {len(rows)} cells with a scale, boxes of {np.median(spans):.1f} um"
    )
    names = np.array([shared(label) for label in known])
    both = np.isin(names, truth)
    for told, vectors in (("whole", references.whole), ("cut", references.cut)):
        index = Index(vectors[both], names[both])
        for way, pictures in (("as they are", crops), ("field of view", shown)):
            found_rows = {share: embedded(encoder, pictures[share]) for share in pictures}
            marks = ", ".join(
                f"{share:g} x box {index.score(rows, truth)}" for share, rows in found_rows.items()
            )
            same = agreement(found_rows[NARROW], found_rows[WIDE], index)
            print(f"BCCD {way}, PBC {told}: {marks}; {same}")


def agreement(one: Vectors, other: Vectors, index: Index) -> str:
    """Cosines of rows to rows, and how many labels stay."""
    cosines = np.einsum("nd,nd->n", one, other)
    low, middle_one = np.percentile(cosines, [5, 50])
    same = (index.said(one) == index.said(other)).mean()
    return f"cosine {middle_one:.3f} (5th percentile {low:.3f}), same label {same:.1%}"


def embedded(encoder: Encoder, images: Sequence[RGB]) -> Vectors:
    """n x dim."""
    return np.concatenate([encoder.embed(images[at : at + 64]) for at in range(0, len(images), 64)])


def middle(image: RGB, side: float) -> RGB:
    """The middle square of a picture, where it is larger."""
    edge = min(*image.shape[:2], int(min(side, 1e6)))
    top, left = (image.shape[0] - edge) // 2, (image.shape[1] - edge) // 2
    return image[top : top + edge, left : left + edge]


def padded(image: RGB, side: float) -> RGB:
    """A picture in the middle of glass."""
    edge = max(*image.shape[:2], round(side))
    left, top = (edge - image.shape[1]) // 2, (edge - image.shape[0]) // 2
    return crop(image, Box(x=-left, y=-top, w=edge, h=edge))


def drawn(rng: np.random.Generator, rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """At most so many of some rows, in order."""
    return np.sort(rng.choice(rows, min(most, len(rows)), replace=False))


if __name__ == "__main__":
    main()
