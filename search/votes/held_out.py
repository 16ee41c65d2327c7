"""Neighbours under axes that labels chose, found for each item without its own label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from search.neighbours.groups import groups, neighbours_outside
from search.schemas.answers import Hit
from search.schemas.items import Item
from search.transforms.adaptation import Adaptation
from search.transforms.contract import Sample, Vectors
from search.transforms.folds import in_fold

FOLDS = 5


def sample_of(items: Sequence[Item], vectors: Vectors, field: str) -> Sample:
    """Stored items as a transform is fitted on them.

    Args:
        items: n of them.
        vectors: n x dim, as the encoder made them.
        field: What distinguishes sites.
    """
    return Sample(
        vectors,
        np.array([getattr(item, field) or "" for item in items], np.str_),
        np.array([item.label or "" for item in items], np.str_),
        groups(
            [item.patient for item in items],
            [item.case for item in items],
            [item.source for item in items],
        ),
    )


class HeldOut:
    """The neighbours of stored items under the transform of a version, fitted anew without them.

    Vectors whose axes were chosen by the labels of the very items that are asked about place each
    of them nearer to its own label than a new cell would lie.

    Args:
        adaptation: Of the version.
        items: All that it holds.
        vectors: n x base dim, as the encoder made them.
    """

    def __init__(self, adaptation: Adaptation, items: Sequence[Item], vectors: Vectors) -> None:
        self._adaptation, self._items = adaptation, items
        sample = sample_of(items, vectors, adaptation.field)
        if adaptation.sites:  # one that came later is aligned by the nearest, as the index does
            known = np.isin(sample.sites, adaptation.sites)
            sample = replace(sample, sites=np.where(known, sample.sites, ""))
        self._sample = sample
        self._rows = {item.id: at for at, item in enumerate(items)}
        count = int(self._sample.groups.max(initial=0)) + 1
        self._fold = (np.random.default_rng(0).permutation(count) % FOLDS)[self._sample.groups]

    def __call__(self, ids: Sequence[str], k: int) -> list[list[Hit]]:
        """The `k` nearest items of other groups for each id, from the folds that it is not in.

        Raises:
            CannotFit: some fold leaves too little for the transform.
        """
        found: dict[int, list[Hit]] = {}
        wanted = np.array([self._rows[id] for id in ids if id in self._rows], np.int64)
        for fold in np.unique(self._fold[wanted]):
            train, test = np.flatnonzero(self._fold != fold), np.flatnonzero(self._fold == fold)
            if not len(train):
                continue
            queries, sample = wanted[self._fold[wanted] == fold], self._sample
            vectors = in_fold(self._adaptation.kind, sample, self._adaptation.base, train, test)
            near, cosines = neighbours_outside(vectors, sample.groups, queries, train, k)
            for row, others, scores in zip(queries.tolist(), near, cosines, strict=True):
                found[row] = [
                    Hit(item=self._items[at], score=float(np.clip(score, -1.0, 1.0)))
                    for at, score in zip(others.tolist(), scores.tolist(), strict=True)
                    if at >= 0
                ]
        return [found.get(self._rows.get(id, -1), []) for id in ids]
