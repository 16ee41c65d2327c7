"""Scores of rankings: AUROC, average precision, and mAP@k, with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.evaluation.metrics import Draws, Labels

AT_ONCE = 4_000_000
"""Weights in memory at once."""


@dataclass(frozen=True)
class Ranked:
    """How well the shares of one class separate its items from the others."""

    auroc: NDArray[np.float64]
    """r values, NaN where a resample has only one side."""
    auprc: NDArray[np.float64]


def ranked(
    shares: NDArray[np.floating], positive: NDArray[np.bool_], weights: NDArray[np.number]
) -> Ranked:
    """AUROC and average precision under r sets of weights, as scikit-learn has them.

    Equal shares count half in the AUROC, and are one threshold in the average precision.

    Args:
        shares: n values; larger means rather this class.
        positive: n flags.
        weights: r x n.
    """
    order = np.argsort(-shares, kind="stable")
    falling = shares[order]
    starts = np.flatnonzero(np.concatenate([[True], falling[1:] != falling[:-1]]))
    sorted_weights = weights[:, order].astype(np.float64)
    of_class = positive[order]
    hits = np.add.reduceat(sorted_weights * of_class, starts, axis=1)
    misses = np.add.reduceat(sorted_weights * ~of_class, starts, axis=1)
    hit_sum, miss_sum = hits.cumsum(axis=1), misses.cumsum(axis=1)
    all_hits, all_misses = hit_sum[:, -1], miss_sum[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        below = all_misses[:, None] - miss_sum + misses / 2
        auroc = (hits * below).sum(axis=1) / (all_hits * all_misses)
        called = hit_sum + miss_sum
        precision = np.divide(hit_sum, called, out=np.zeros_like(called), where=called > 0)
        auprc = (hits * precision).sum(axis=1) / all_hits
    one_sided = (all_hits <= 0) | (all_misses <= 0)
    return Ranked(np.where(one_sided, np.nan, auroc), np.where(one_sided, np.nan, auprc))


def ranked_by_class(
    shares: NDArray[np.floating], truth: Labels, counts: NDArray[np.number]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUROC and average precision of each class against the rest.

    Args:
        shares: n x classes.
        truth: n class numbers.
        counts: r x n weights.

    Returns:
        Two arrays, r x classes; NaN where a class, or everything else, is missing.
    """
    r, n, classes = len(counts), *shares.shape
    auroc, auprc = np.empty((r, classes)), np.empty((r, classes))
    step = max(1, AT_ONCE // max(1, n))
    for at in range(0, r, step):
        part = counts[at : at + step]
        for one in range(classes):
            found = ranked(shares[:, one], truth == one, part)
            auroc[at : at + step, one], auprc[at : at + step, one] = found.auroc, found.auprc
    return auroc, auprc


def drawn_weights(drawn: Draws, most: int) -> NDArray[np.int64]:
    """The weight of each prediction in the first `most` draws, r x n."""
    return np.asarray(drawn.counts[:most][:, drawn.member])


def mean_of_classes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the classes that have a value; NaN where none has."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=1)
    count = known.sum(axis=1)
    mean = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    return np.asarray(mean)


def average_precision_at_k(
    relevant: NDArray[np.bool_], there: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Average precision of each query's first k neighbours.

    The precision at each relevant rank, summed, and divided by the most that could have been
    found: k, or all that are relevant where these are fewer.

    Args:
        relevant: n x k flags: whether the neighbour at each rank has the query's label.
        there: n counts of the relevant items that may be found at all.

    Returns:
        n values, 0 to 1; NaN where nothing relevant is there to be found.
    """
    k = relevant.shape[1]
    precision = relevant.cumsum(axis=1) / np.arange(1, k + 1)
    most = np.minimum(there, k)
    found = (precision * relevant).sum(axis=1)
    shares = np.divide(found, most, out=np.full(len(relevant), np.nan), where=most > 0)
    return np.asarray(shares)
