"""How much a search loses when the stain of the query differs from the library's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB, Encoder
from search.evaluation.metrics import confusion, scores
from search.evaluation.splits import Rows
from search.votes.knn import nearest_label
from train.data.datasets import Labelled

CHUNK = 256
"""Images shifted and embedded at once."""


@dataclass(frozen=True)
class Shift:
    """A change of every query's colours."""

    kind: str
    """`hue`, `saturation` or `brightness`."""
    amount: float
    """Of the hue: turns of the colour circle. Else: the factor minus 1."""

    @property
    def name(self) -> str:
        """`hue +10 %`: of the whole circle; `brightness -10 %`: of the value."""
        return f"{self.kind} {100 * self.amount:+g} %"


SHIFTS = tuple(
    Shift(kind, amount) for kind in ("hue", "saturation", "brightness") for amount in (-0.1, 0.1)
)
"""A tenth of the colour circle is far: from violet to blue or to pink."""
SLIGHT = tuple(Shift("hue", amount) for amount in (-0.025, 0.025))
"""About as far as stain batches of one laboratory lie apart."""


@dataclass(frozen=True)
class Loss:
    """Scores of shifted queries against a library that was not shifted."""

    shift: str
    scores: dict[str, float]
    lost: dict[str, float]
    """Points (0 to 100) below the scores of the same queries unshifted."""


def shifted(images: Sequence[RGB], shift: Shift) -> list[RGB]:
    """The images with other colours; sizes stay.

    Raises:
        ValueError: an unknown kind of shift.
    """
    return [_shifted(image, shift) for image in images]


def _shifted(image: RGB, shift: Shift) -> RGB:
    import torch

    from train.augmentation import colour

    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    if shift.kind == "hue":
        x = colour.shift_hue(x, torch.tensor([shift.amount]))
    elif shift.kind == "saturation":
        x = colour.saturation(x, torch.tensor([1 + shift.amount]))
    elif shift.kind == "brightness":
        x = colour.brightness(x, torch.tensor([1 + shift.amount]))
    else:
        raise ValueError(f"unknown shift {shift.kind!r}: expected hue, saturation or brightness")
    out = (x[0].permute(1, 2, 0) * 255).round().clamp(0, 255)
    return np.ascontiguousarray(out.numpy().astype(np.uint8))


def robustness(
    encoder: Encoder,
    labelled: Labelled,
    library: NDArray[np.float32],
    train: Rows,
    test: Rows,
    *,
    k: int = 20,
    shifts: Sequence[Shift] = SHIFTS,
    progress: Callable[[str], None] = lambda name: None,
) -> list[Loss]:
    """Shift the queries only, and vote as always.

    Args:
        encoder: Embeds the shifted queries.
        labelled: The set.
        library: Vectors of the whole set, unshifted, in its order.
        train: References.
        test: Queries.
        k: Neighbours that vote.
        shifts: Which.
        progress: Callback with the name of each shift before it is embedded.
    """
    names, truth = np.unique(labelled.labels, return_inverse=True)
    references = library[train]

    def scored(queries: NDArray[np.float32]) -> dict[str, float]:
        predicted = nearest_label(queries, references, truth[train], len(names), k)
        return scores(confusion(truth[test], predicted, len(names)))

    before = scored(library[test])
    losses = []
    for shift in shifts:
        progress(shift.name)
        after = scored(np.concatenate(list(_embedded(encoder, labelled, test, shift))))
        lost = {name: 100 * (before[name] - after[name]) for name in before}
        losses.append(Loss(shift.name, after, lost))
    return losses


def _embedded(
    encoder: Encoder, labelled: Labelled, rows: Rows, shift: Shift
) -> Iterator[NDArray[np.float32]]:
    for at in range(0, len(rows), CHUNK):
        part = rows[at : at + CHUNK].tolist()
        yield encoder.embed(shifted(list(labelled.images(part)), shift))
