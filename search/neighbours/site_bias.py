"""Site bias: whether neighbours are chosen by origin rather than by what they show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.neighbours.groups import Rows, neighbours_outside

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Origins:
    """Items whose neighbours are compared by origin."""

    vectors: NDArray[np.float32]
    """n x dim, length 1."""
    origin: Rows
    """n numbers of sites (or scanners, ...); -1 where it is not known."""
    label: Rows
    """n numbers of labels; -1 where there is none."""
    group: Rows
    """n numbers of groups (patient, case or source); see `search.neighbours.groups`."""


@dataclass(frozen=True)
class SiteBias:
    """How much neighbours keep to the origin of their query, and how much to its label."""

    queries: Rows
    """The m rows that have a neighbour."""
    own: Shares
    """For each of them, the share of its neighbours that are of its origin."""
    expected: Shares
    """What `own` would be if origin did not matter among items of one label: the mean, over the
    neighbours, of the share of the query's origin among all possible neighbours with the label
    of that neighbour. Items without a label count as one label."""
    same_label: Shares
    """For each of them, the share of its labelled neighbours that carry its label; not a number
    where none has a label, or it has none itself."""
    robustness: float | None
    """Robustness index (de Jong et al. 2025): neighbours with the label of the query from another
    origin, divided by these and those with another label from its own origin. 1: ordered by
    label, 0: by origin. Only queries count for which both kinds exist among the possible
    neighbours; `None` where there are none, so that it cannot be known."""

    @property
    def share(self) -> float:
        """The mean of `own`."""
        return float(self.own.mean())

    @property
    def expected_share(self) -> float:
        """The mean of `expected`."""
        return float(self.expected.mean())


def drawn(rows: Rows, most: int, seed: int = 0) -> Rows:
    """Up to `most` of the rows, in order, the same ones every time."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def site_bias(
    items: Origins,
    queries: Rows,
    k: int,
    progress: Callable[[int], None] = lambda done: None,
) -> SiteBias | None:
    """Compare the origins and labels of the `k` nearest neighbours with those of their queries.

    A possible neighbour is any item of known origin outside the query's own group.

    Args:
        items: What is compared.
        queries: Rows of known origin.
        k: Neighbours of each.
        progress: Called with the number of queries answered; may raise to stop.

    Returns:
        `None` where no query has a possible neighbour.
    """
    origin, label = items.origin, items.label
    known = np.flatnonzero(origin >= 0)
    near, _ = neighbours_outside(items.vectors, items.group, queries, known, k, progress)
    queries, near = queries[near[:, 0] >= 0], near[near[:, 0] >= 0]
    if not len(queries):
        return None
    there = near >= 0
    labelled = there & (label[near] >= 0) & (label[queries] >= 0)[:, None]
    own = there & (origin[near] == origin[queries][:, None])
    same = labelled & (label[near] == label[queries][:, None])
    expected, comparable = _possible(items, queries, near)
    good = int((same & ~own)[comparable].sum())
    bad = int((labelled & ~same & own)[comparable].sum())
    named = np.where(labelled.any(axis=1), labelled.sum(axis=1), np.nan)
    return SiteBias(
        queries=queries,
        own=own.sum(axis=1) / there.sum(axis=1),
        expected=expected,
        same_label=same.sum(axis=1) / named,
        robustness=good / (good + bad) if good + bad else None,
    )


def _possible(items: Origins, queries: Rows, near: Rows) -> tuple[Shares, NDArray[np.bool_]]:
    """The expected share of each query, and whether it counts in the robustness index."""
    origin, group = items.origin, items.group
    labels = int(items.label.max()) + 1
    label = np.where(items.label < 0, labels, items.label)
    known = np.flatnonzero(origin >= 0)
    counts = np.zeros((labels + 1, int(origin.max()) + 1), np.int64)
    np.add.at(counts, (label[known], origin[known]), 1)
    totals = counts.sum(axis=1)
    members = known[np.argsort(group[known], kind="stable")]
    first = np.searchsorted(group[members], group[queries], "left")
    last = np.searchsorted(group[members], group[queries], "right")
    expected, comparable = np.zeros(len(queries)), np.zeros(len(queries), np.bool_)
    for at, row in enumerate(queries):
        group_mates = members[first[at] : last[at]]
        here = group_mates[origin[group_mates] == origin[row]]
        every = totals - np.bincount(label[group_mates], minlength=labels + 1)
        own = counts[:, origin[row]] - np.bincount(label[here], minlength=labels + 1)
        of = label[near[at][near[at] >= 0]]
        expected[at] = (own[of] / every[of]).mean()
        if label[row] < labels:
            elsewhere = every[label[row]] - own[label[row]]
            comparable[at] = elsewhere > 0 and own[:labels].sum() > own[label[row]]
    return expected, comparable
