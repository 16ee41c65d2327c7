"""Neighbours under axes that labels chose, found for each item without its own label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from search.neighbours.duplicates import Hashes
from search.neighbours.groups import item_groups, neighbours_outside
from search.schemas.answers import Hit
from search.schemas.items import Item
from search.transforms.adaptation import Adaptation
from search.transforms.contract import Rows, Sample, Vectors
from search.transforms.folds import under

FOLDS = 5


def sample_of(
    items: Sequence[Item],
    vectors: Vectors,
    field: str,
    patients: Mapping[str, str],
    hashes: Hashes | None = None,
) -> Sample:
    """Stored items as a transform is fitted on them.

    Args:
        items: n of them.
        vectors: n x dim, as the encoder made them.
        field: What distinguishes sites.
        patients: Patients that the records of cases name, by case.
        hashes: See `item_groups`.
    """
    return Sample(
        vectors,
        np.array([getattr(item, field) or "" for item in items], np.str_),
        np.array([item.label or "" for item in items], np.str_),
        item_groups(items, patients, hashes),
    )


class HeldOut:
    """The neighbours of stored items under the transform of a version, fitted anew without them.

    Vectors whose axes were chosen by the labels of the very items that are asked about place each
    of them nearer to its own label than a new cell would lie.

    Args:
        adaptation: Of the version.
        items: All that it holds.
        vectors: n x base dim, as the encoder made them.
        patients: Patients that the records of cases name, by case.
        hashes: See `item_groups`.
    """

    def __init__(
        self,
        adaptation: Adaptation,
        items: Sequence[Item],
        vectors: Vectors,
        patients: Mapping[str, str],
        hashes: Hashes | None = None,
    ) -> None:
        self._adaptation, self._items = adaptation, items
        sample = sample_of(items, vectors, adaptation.field, patients, hashes)
        if adaptation.sites:  # one that came later is aligned by the nearest, as the index does
            known = np.isin(sample.sites, adaptation.sites)
            sample = replace(sample, sites=np.where(known, sample.sites, ""))
        self._sample = sample
        self._rows = {item.id: at for at, item in enumerate(items)}
        count = int(self._sample.groups.max(initial=0)) + 1
        self._fold = (np.random.default_rng(0).permutation(count) % FOLDS)[self._sample.groups]

    @property
    def groups(self) -> Rows:
        """Of each item, equal for those of one patient, case, source or picture."""
        return self._sample.groups

    def stored(self) -> Vectors:
        """The vectors of the items as the version has them (n x dim)."""
        return self._adaptation.apply(self._sample.vectors, self._sample.sites)

    def vectors(self, train: Rows, test: Rows) -> Vectors:
        """The vectors of items (n x dim) under a transform that was fitted on `train` alone.

        Raises:
            CannotFit: they are too little for the transform.
        """
        fitted = self._adaptation.refitted(self._sample.take(train))
        return under(fitted, self._sample, train, test)

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
            queries, vectors = wanted[self._fold[wanted] == fold], self.vectors(train, test)
            near, cosines = neighbours_outside(vectors, self._sample.groups, queries, train, k)
            for row, others, scores in zip(queries.tolist(), near, cosines, strict=True):
                found[row] = [
                    Hit(item=self._items[at], score=float(np.clip(score, -1.0, 1.0)))
                    for at, score in zip(others.tolist(), scores.tolist(), strict=True)
                    if at >= 0
                ]
        return [found.get(self._rows.get(id, -1), []) for id in ids]
