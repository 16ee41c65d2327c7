"""The papers' scores from a confusion matrix, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
"""n class numbers, 0 to classes - 1."""
LEVEL = 0.95
"""Share of resamples inside an interval."""
METRICS = ("weighted_f1", "balanced_accuracy", "accuracy", "macro_f1")
"""What is reported: the papers' three, and macro F1, which rare classes cannot hide in."""


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval."""

    low: float
    high: float
    level: float
    """Share of resamples inside, for instance 0.95."""
    resamples: int
    clusters: int
    """Units that were drawn: patients, fields, images."""


def confusion(
    truth: Labels,
    predicted: Labels,
    classes: int,
    weights: NDArray[np.number] | None = None,
    *,
    unanswered: bool = False,
) -> NDArray[np.float64]:
    """Counts by (truth, predicted), classes x classes.

    Args:
        truth: n class numbers.
        predicted: n class numbers.
        classes: Number of classes.
        weights: n weights; 1 each if left out.
        unanswered: A prediction of -1 is no answer; one more column counts these.

    Raises:
        ValueError: lengths differ, or a class number is out of range.
    """
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(f"truth {truth.shape} and predicted {predicted.shape} must be equal rows")
    for name, values, least in (("truth", truth, 0), ("predicted", predicted, -int(unanswered))):
        if len(values) and (values.min() < least or values.max() >= classes):
            raise ValueError(
                f"{name} must hold class numbers {least} to {classes - 1}, "
                f"got {int(values.min())} to {int(values.max())}"
            )
    columns = classes + int(unanswered)
    at = truth * columns + np.where(predicted < 0, classes, predicted)
    flat = np.bincount(at, weights=weights, minlength=classes * columns)
    return flat.reshape(classes, columns).astype(np.float64)


def scores(matrix: NDArray[np.floating]) -> dict[str, float]:
    """The four `METRICS` of one confusion matrix, or of many at once.

    As scikit-learn has them: balanced accuracy is the mean recall of the classes that occur in
    the truth; F1 of a class without hits is 0; macro F1 is over the classes that occur in the
    truth or in the predictions.

    Args:
        matrix: classes x classes by (truth, predicted), or with one more column of those that
            were not answered, which are never right; must not be empty.
    """
    return {name: float(value[0]) for name, value in scores_of_many(matrix[None]).items()}


def scores_of_many(matrices: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """`scores` of r matrices at once: r values each."""
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    support = matrices.sum(axis=2)
    called = matrices.sum(axis=1)[:, : support.shape[1]]
    total = support.sum(axis=1)
    if (total <= 0).any():
        raise ValueError("no predictions to score")
    f1 = np.divide(2 * hits, support + called, out=np.zeros_like(hits), where=support + called > 0)
    recall = np.divide(hits, support, out=np.zeros_like(hits), where=support > 0)
    return {
        "weighted_f1": (f1 * support).sum(axis=1) / total,
        "balanced_accuracy": recall.sum(axis=1) / (support > 0).sum(axis=1),
        "accuracy": hits.sum(axis=1) / total,
        "macro_f1": f1.sum(axis=1) / (support + called > 0).sum(axis=1),
    }


def bootstrap(
    truth: Labels,
    predicted: Labels,
    clusters: Sequence[str] | NDArray[np.str_],
    classes: int,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Cluster bootstrap: whole clusters are drawn with replacement, never single cells.

    Cells of one patient are not independent; drawing them one by one makes intervals too
    narrow (Field and Welsh 2007, J. R. Stat. Soc. B 69). The classifier is not refitted: the
    interval covers the choice of test cases, not of training cases.

    Args:
        truth: n class numbers.
        predicted: n class numbers.
        clusters: n names; equal names are drawn together.
        classes: Number of classes.
        resamples: How often to draw.
        seed: Of the draws.
    """
    if len(clusters) != len(truth):
        raise ValueError(f"{len(clusters)} clusters for {len(truth)} predictions")
    drawn = draws(clusters, resamples, seed)
    matrices = drawn_matrices(truth, predicted, classes, drawn)
    return {
        name: Interval(*ends(values), LEVEL, resamples, drawn.clusters)
        for name, values in scores_of_many(matrices).items()
    }


@dataclass(frozen=True)
class Draws:
    """Whole clusters, drawn with replacement."""

    counts: NDArray[np.int64]
    """resamples x clusters: how often each was drawn."""
    member: NDArray[np.int64]
    """n positions: the cluster of each prediction."""

    @property
    def clusters(self) -> int:
        """How many there are."""
        return int(self.counts.shape[1])


def draws(
    clusters: Sequence[str] | NDArray[np.generic], resamples: int = 1000, seed: int = 0
) -> Draws:
    """The draws of a cluster bootstrap.

    Args:
        clusters: n names or numbers; equal ones are drawn together.
        resamples: How often to draw.
        seed: Of the draws.
    """
    names, member = np.unique(np.asarray(clusters), return_inverse=True)
    if resamples < 1:
        raise ValueError(f"need resamples >= 1, got {resamples}")
    rng = np.random.default_rng(seed)
    counts = [
        np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        for _ in range(resamples)
    ]
    return Draws(np.stack(counts), member)


def drawn_matrices(
    truth: Labels, predicted: Labels, classes: int, drawn: Draws, *, unanswered: bool = False
) -> NDArray[np.float64]:
    """The confusion matrix of every draw; see `confusion`."""
    return np.stack(
        [
            confusion(truth, predicted, classes, counts[drawn.member], unanswered=unanswered)
            for counts in drawn.counts
        ]
    )


def ends(values: NDArray[np.floating], level: float = LEVEL) -> tuple[float, float]:
    """The ends of the percentile interval of some resampled values."""
    if not 0 < level < 1:
        raise ValueError(f"need 0 < level < 1, got {level}")
    tail = (1 - level) / 2
    return float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))
