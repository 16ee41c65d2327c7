"""A transform beside no transform, each cell scored under one that was not fitted on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from search.evaluation import splits
from search.evaluation.metrics import (
    confusion,
    drawn_matrices,
    draws,
    ends,
    scores,
    scores_of_many,
)
from search.evaluation.splits import Fold
from search.maintenance.checks import Check
from search.neighbours.groups import Rows, neighbours_outside
from search.neighbours.site_bias import Origins, drawn, site_bias
from search.transforms.contract import CannotFit, Sample, Vectors
from search.transforms.folds import in_fold
from search.votes.knn import votes

K = 20
"""Neighbours that vote."""
USED = 10_000
"""Most labelled rows that are compared, labels in proportion."""
QUERIES = 3000
"""Most rows that are predicted in each of the two splits."""
FOLDS = 5
RESAMPLES = 500
MARGIN = 0.01
"""A score may fall by so much within a site."""
SCORED = ("weighted_f1", "balanced_accuracy")
Progress = Callable[[int, int], None]


class Confounded(CannotFit):
    """A library in which the effects of labels and sites cannot be separated."""


@dataclass(frozen=True)
class Predicted:
    """What a 20-NN vote predicted of the same rows without and with the transform."""

    rows: Rows
    before: Rows
    """Label numbers; -1 where the vote was tied or nobody voted."""
    after: Rows


@dataclass(frozen=True)
class Comparison:
    """How an index does without and with a transform, as checks with figures and limits."""

    checks: tuple[Check, ...]
    split: str
    """In words: what was held out."""
    rows: int
    """Labelled rows that were compared."""


def compare(
    kind: str,
    sample: Sample,
    base: EncoderCard,
    progress: Progress = lambda done, total: None,
) -> Comparison:
    """Score a transform in cross-validation, fitted anew in each fold on its train rows.

    Args:
        kind: As `Adaptation.fit` takes it.
        sample: All rows; those without a label are left out.
        base: Card of the encoder that made the vectors.
        progress: Callback with folds done and folds in all; may raise to stop.

    Raises:
        Confounded: fewer than two labels occur at more than one of several sites.
        CannotFit: fewer than two labels, or the kind needs more than there is in some fold.
    """
    known = sample.take(np.flatnonzero(sample.labels != ""))
    if (labels := len(np.unique(known.labels))) < 2:
        raise CannotFit(
            f"labels say whether neighbours get better, so that two are needed, got {labels}; "
            "ingest labelled items"
        )
    refuse_confounded(known)
    known = known.take(splits.subset(known.labels, known.groups.astype(str), USED))
    sites = np.unique(known.sites[known.sites != ""])
    mixed = _by_group(known)
    by_site, words = (_by_site(known, sites), "each site held out in turn")
    if len(by_site) < 2:
        by_site, words = mixed, f"{len(mixed)} folds of whole patients, cases or sources"
    total = len(mixed) + len(by_site)
    across = _predicted(kind, known, base, by_site, lambda done: progress(done, total))
    within = across
    bias: list[Check] = []
    if by_site is not mixed:
        within = _predicted(
            kind, known, base, mixed, lambda done: progress(len(by_site) + done, total)
        )
        bias = [_bias(kind, known, base, mixed[0])]
    truth = np.unique(known.labels, return_inverse=True)[1]
    return Comparison(
        (_transfer(across, truth, known.groups, words), *_within(within, truth, known), *bias),
        words,
        len(known),
    )


def refuse_confounded(sample: Sample) -> None:
    """Refuse labelled rows whose label says their site.

    Raises:
        Confounded: there are several sites and labels, and fewer than two labels occur at more
            than one site; says how many of each label each site has.
    """
    placed = sample.take(np.flatnonzero((sample.sites != "") & (sample.labels != "")))
    labels, sites = np.unique(placed.labels), np.unique(placed.sites)
    if len(labels) < 2 or len(sites) < 2:
        return
    counts = {label: Counter(placed.sites[placed.labels == label].tolist()) for label in labels}
    if sum(len(at) > 1 for at in counts.values()) >= 2:
        return
    lines = [
        f"  {label}: " + ", ".join(f"{site} {n}" for site, n in sorted(at.items()))
        for label, at in counts.items()
    ]
    raise Confounded(
        "the effects of labels and sites cannot be separated here, because fewer than two labels "
        "occur at more than one site: a transform would take the site for "
        "the label, or the label for the site. "
        "Ingest cells of the same labels from several sites. Cells by label and site:\n"
        + "\n".join(lines)
    )


def predict(vectors: Vectors, sample: Sample, fold: Fold, rows: Rows) -> Rows:
    """Labels (numbers) that a 20-NN vote of a fold's train rows predicts; -1 where it is tied."""
    truth = np.unique(sample.labels, return_inverse=True)[1]
    near, cosines = neighbours_outside(vectors, sample.groups, rows, fold.train, K)
    found = votes(np.where(near >= 0, truth[near], -1), cosines, int(truth.max()) + 1)
    return np.where(found.tied, -1, found.first)


def _predicted(
    kind: str,
    sample: Sample,
    base: EncoderCard,
    folds: Sequence[Fold],
    progress: Callable[[int], None],
) -> Predicted:
    share = max(1, QUERIES // len(folds))
    parts = []
    for at, fold in enumerate(folds):
        rows = drawn(fold.test, share)
        vectors = in_fold(kind, sample, base, fold.train, fold.test)
        before = predict(sample.vectors, sample, fold, rows)
        parts.append((rows, before, predict(vectors, sample, fold, rows)))
        progress(at + 1)
    return Predicted(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _by_site(sample: Sample, sites: NDArray[np.str_]) -> list[Fold]:
    folds = []
    for site in sites:
        test = np.flatnonzero(sample.sites == site)
        train = np.flatnonzero((sample.sites != site) & (sample.sites != ""))
        train = train[~np.isin(sample.groups[train], sample.groups[test])]
        if len(train):
            folds.append(Fold(str(site), train, test))
    return folds


def _by_group(sample: Sample) -> list[Fold]:
    groups = sample.groups.astype(str)
    count = min(FOLDS, len(np.unique(groups)))
    if count < 2:
        raise CannotFit(
            "every labelled item belongs to one patient, case or source, so that nothing can be "
            "held out; ingest more of them, or say which patient each is of"
        )
    if len(np.unique(groups)) == len(sample):
        return splits.stratified(sample.labels, count)
    return splits.grouped(sample.labels, groups, count)


def _transfer(found: Predicted, truth: Rows, groups: Rows, words: str) -> Check:
    """Whether weighted F1 or balanced accuracy rises by more than its interval, and neither falls.

    Both sides are scored on the same rows, and the same groups are drawn for both.
    """
    classes, right = int(truth.max()) + 1, truth[found.rows]
    sample = draws(groups[found.rows], RESAMPLES)
    figures: dict[str, float] = {}
    lows, highs = [], []
    before, after = (
        scores(confusion(right, predicted, classes, unanswered=True))
        for predicted in (found.before, found.after)
    )
    one, other = (
        scores_of_many(drawn_matrices(right, predicted, classes, sample, unanswered=True))
        for predicted in (found.before, found.after)
    )
    for name in SCORED:
        low, high = ends(other[name] - one[name])
        figures |= {f"{name}_before": before[name], name: after[name]}
        figures |= {f"{name}_gain_low": low, f"{name}_gain_high": high}
        lows.append(low)
        highs.append(high)
    limits = {f"{name}_gain_low": 0.0 for name in SCORED}
    note = (
        f"{words}, the transform fitted anew each time; one gain must be above 0 with its whole "
        "interval, and none below 0 with its whole interval"
    )
    return Check("transfer", max(lows) > 0 and min(highs) >= 0, figures, limits, note)


def _within(found: Predicted, truth: Rows, sample: Sample) -> list[Check]:
    """One check for each site (one in all where there are none): no score falls by more than a
    point."""
    classes, checks = int(truth.max()) + 1, []
    for site in np.unique(sample.sites[found.rows]):
        of = sample.sites[found.rows] == site
        right = truth[found.rows][of]
        before, after = (
            scores(confusion(right, predicted[of], classes, unanswered=True))
            for predicted in (found.before, found.after)
        )
        figures = {f"{name}_before": before[name] for name in SCORED}
        figures |= {name: after[name] for name in SCORED}
        limits = {name: before[name] - MARGIN for name in SCORED}
        good = all(after[name] >= limits[name] for name in SCORED)
        name = f"within {site}" if site else "within"
        checks.append(Check(name, good, figures, limits, f"{int(of.sum())} queries"))
    return checks


def _bias(kind: str, sample: Sample, base: EncoderCard, fold: Fold) -> Check:
    """Robustness index and share of the own site before and after, on test rows of one fold."""
    vectors = in_fold(kind, sample, base, fold.train, fold.test)
    origin = np.unique(sample.sites, return_inverse=True)[1]
    origin = np.where(sample.sites == "", -1, origin)
    label = np.unique(sample.labels, return_inverse=True)[1]
    queries = drawn(fold.test[origin[fold.test] >= 0], QUERIES // FOLDS)
    figures: dict[str, float] = {}
    for name, rows in (("_before", sample.vectors), ("", vectors)):
        found = site_bias(Origins(rows, origin, label, sample.groups), queries, K)
        if found is None:
            return Check("robustness", None, note="no query has a possible neighbour")
        figures |= {f"own_site{name}": found.share, f"expected{name}": found.expected_share}
        if found.robustness is not None:
            figures[f"robustness{name}"] = found.robustness
    return Check("robustness", None, figures, note="shown, not required")
