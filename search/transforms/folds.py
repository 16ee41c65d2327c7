"""A transform inside a train/test split: fitted on the train rows, never on the test rows."""

from __future__ import annotations

import numpy as np

from encoder.card import EncoderCard
from search.transforms.adaptation import Adaptation
from search.transforms.contract import Rows, Sample, Vectors, halves


def in_fold(kind: str, sample: Sample, base: EncoderCard, train: Rows, test: Rows) -> Vectors:
    """Vectors of one fold, under a transform that was fitted on its train rows alone.

    A test row of a site that is not in train is aligned by unlabelled cells of its site: those of
    the other half of its groups, so that nothing was fitted on the row itself or its group. Where
    its site has no other group, and where it names no site, it is aligned by the nearest train
    site.

    Args:
        kind: As `Adaptation.fit` takes it.
        sample: All rows.
        base: Card of the encoder that made the vectors.
        train: Rows to fit on; their labels are read.
        test: Rows that are only transformed; their labels are not read.

    Returns:
        n x dim; rows that are neither train nor test are zeros.

    Raises:
        CannotFit: train lacks what the kind needs.
    """
    return under(Adaptation.fit(kind, sample.take(train), base), sample, train, test)


def under(fitted: Adaptation, sample: Sample, train: Rows, test: Rows) -> Vectors:
    """As `in_fold`, under a transform that was fitted on the train rows already."""
    out = np.zeros((len(sample), fitted.dim), np.float32)
    out[train] = fitted.apply(sample.vectors[train], sample.sites[train])
    sites = sample.sites[test]
    strange = (sites != "") & ~np.isin(sites, fitted.sites) & bool(fitted.sites)
    known = test[~strange]
    out[known] = fitted.apply(sample.vectors[known], sample.sites[known])
    for site in np.unique(sites[strange]):
        rows = test[strange & (sites == site)]
        half = halves(sample.groups[rows])
        for side in (False, True):
            own, others = rows[half == side], rows[half != side]
            at = fitted.with_site(site, sample.vectors[others]) if len(others) else fitted
            if len(own):
                out[own] = at.apply(sample.vectors[own], sample.sites[own])
    return out
