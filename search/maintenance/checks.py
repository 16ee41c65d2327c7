"""What a new version must pass before it serves: each check with its figure and its limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from encoder.contract import Encoder
from search.index.contract import ENOUGH_RECALL, BuildReport, Vectors
from search.library.shards import Entry
from search.library.sources import ReadPixels, read_again, seen
from search.neighbours.exact import search
from search.neighbours.groups import Rows, neighbours_outside, numbered
from search.neighbours.site_bias import Origins, drawn, site_bias
from search.schemas.items import Item
from search.votes.knn import votes

SAME = 0.99999
"""Two vectors with a cosine from here on are one vector."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The thresholds of the checks."""

    most_mean_cosine: float = 0.98
    """Of random pairs; vectors that all point one way separate nothing."""
    least_rank: float = 4.0
    """Effective rank: how many directions the vectors really use."""
    most_duplicates: float = 0.02
    """Share of items whose vector is that of another item; or the parent's share and
    `duplicates_margin`, if that is more."""
    duplicates_margin: float = 0.01
    golden: int = 50
    """Stored images that are embedded again."""
    least_golden: float = 0.999
    """Cosine of each to its stored vector."""
    least_recall: float = ENOUGH_RECALL
    """At 10 against exact search, without and with filters."""
    knn_margin: float = 0.01
    """The weighted F1 may be so much below the parent's."""
    bias_margin: float = 0.02
    """The excess share of the own site may be so much above the parent's, and the robustness
    index so much below."""
    queries: int = 2000
    """Most items that are queries; the same ones every time."""
    k: int = 20
    """Neighbours in the votes and shares."""


@dataclass(frozen=True)
class Check:
    """One check, and its outcome."""

    name: str
    passed: bool | None
    """`None` where it could not be measured; `note` says why."""
    figures: dict[str, float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Table:
    """The items of a version, in order of id."""

    ids: Sequence[bytes]
    items: Sequence[Item]
    vectors: Vectors
    """n x dim."""
    group: Rows
    """Of each item: `search.neighbours.groups.item_groups`."""


def failed(results: Sequence[Check]) -> list[Check]:
    """The checks that failed."""
    return [check for check in results if check.passed is False]


def examine(
    new: Table,
    parent: Table | None,
    built: BuildReport,
    golden: Check,
    limits: Limits = Limits(),
) -> list[Check]:
    """Every check.

    Args:
        new: The version that wants to serve.
        parent: The version that serves now; `None` for a first one.
        built: What the build of its graph measured.
        golden: From `golden_vectors`.
        limits: The thresholds.
    """
    results = [finite(new.vectors)]
    if results[0].passed is False:
        return results  # the rest would be figures of nothing
    results += [
        collapse(new.vectors, limits),
        duplicates(new, parent, limits),
        golden,
        recall(built, limits),
    ]
    both = None if parent is None else common(new, parent)
    results += [knn(new, both, limits), centre(new, both, limits)]
    return results


def finite(vectors: Vectors) -> Check:
    """No NaN, no infinity, no zero, and every row of length 1."""
    wide = np.asarray(vectors, np.float64)
    broken = ~np.isfinite(wide).all(axis=1)
    norms = np.linalg.norm(np.where(np.isfinite(wide), wide, 0.0), axis=1)
    off = float(np.abs(norms[~broken] - 1).max(initial=0.0))
    figures = {
        "vectors": float(len(vectors)),
        "not_finite": float(broken.sum()),
        "zero": float((norms[~broken] < 1e-12).sum()),
        "most_off_length_1": off,
    }
    good = len(vectors) > 0 and not broken.any() and off <= 1e-3
    limits = {"not_finite": 0.0, "zero": 0.0, "most_off_length_1": 1e-3}
    return Check("finite", good, figures, limits, "" if len(vectors) else "there are no vectors")


def collapse(vectors: Vectors, limits: Limits) -> Check:
    """Whether the vectors point into different directions.

    The effective rank is the exponential of the entropy of the normalised singular values
    (Roy and Vetterli 2007), here of the centred vectors.
    """
    if len(vectors) < 2 * limits.least_rank:
        return Check("collapse", None, note=f"{len(vectors)} items are too few to measure")
    rng = np.random.default_rng(0)
    pairs = rng.integers(len(vectors), size=(20_000, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    cosine = float(np.einsum("nd,nd->n", vectors[pairs[:, 0]], vectors[pairs[:, 1]]).mean())
    some = drawn(np.arange(len(vectors)), 5000)
    wide = vectors[some].astype(np.float64)
    values = np.linalg.svd(wide - wide.mean(axis=0), compute_uv=False)
    shares = values[values > 1e-12] / values.sum() if values.sum() > 0 else np.ones(1)
    rank = float(np.exp(-(shares * np.log(shares)).sum()))
    return Check(
        "collapse",
        cosine <= limits.most_mean_cosine and rank >= limits.least_rank,
        {"mean_cosine": cosine, "effective_rank": rank},
        {"mean_cosine": limits.most_mean_cosine, "effective_rank": limits.least_rank},
    )


def duplicates(new: Table, parent: Table | None, limits: Limits) -> Check:
    """Share of items whose vector another item has too."""
    if len(new.ids) < 2:
        return Check("duplicates", None, note=f"{len(new.ids)} items are too few to measure")
    figures = {"share": _same_share(new.vectors, limits.queries)}
    limit = limits.most_duplicates
    if parent is not None and len(parent.ids) > 1:
        figures["parent"] = _same_share(parent.vectors, limits.queries)
        limit = max(limit, figures["parent"] + limits.duplicates_margin)
    return Check("duplicates", figures["share"] <= limit, figures, {"share": limit})


def golden_vectors(
    entries: Sequence[Entry], encoder: Encoder, read_pixels: ReadPixels, limits: Limits
) -> Check:
    """Stored images, embedded again, must give their stored vectors: else the encoder drifts.

    Args:
        entries: Stored items to embed again.
        encoder: The one that is to answer questions.
        read_pixels: Reads them again.
        limits: The thresholds.
    """
    images, stored, reasons = [], [], []
    for entry in entries:
        image = read_again(read_pixels, entry.path, entry.item, entry.notes)
        if isinstance(image, str):
            reasons.append(image)
        else:
            images.append(seen(encoder.card, image, entry.item, entry.notes))
            stored.append(entry.vector)
    if not images:
        why = f"no source can be read again: {reasons[0]}" if reasons else "there are no items"
        return Check("golden", None, note=why)
    cosines = np.einsum("nd,nd->n", encoder.embed(images), np.stack(stored).astype(np.float32))
    least = float(cosines.min())
    return Check(
        "golden",
        least >= limits.least_golden,
        {"least_cosine": least, "images": float(len(images)), "not_read": float(len(reasons))},
        {"least_cosine": limits.least_golden},
    )


def recall(built: BuildReport, limits: Limits) -> Check:
    """What the index finds of the exact ten nearest."""
    return Check(
        "recall",
        min(built.recall, built.filtered_recall) >= limits.least_recall,
        {"recall": built.recall, "filtered": built.filtered_recall, "queries": float(built.sample)},
        {"recall": limits.least_recall, "filtered": limits.least_recall},
        "" if built.sample else "every answer is exact: there is no graph",
    )


def knn(new: Table, both: tuple[Table, Table] | None, limits: Limits) -> Check:
    """Weighted F1 of the vote of the nearest, own patient left out, against the parent's."""
    ours = new if both is None else both[0]
    names, labels = numbered([item.label for item in ours.items])
    if (labels >= 0).sum() < 2 or len(names) < 2:
        return Check("knn", None, note="fewer than two labels: nothing to vote on")
    figures = {"weighted_f1": _knn_f1(ours, labels, len(names), limits)}
    if both is None:
        return Check("knn", None, figures, note="there is no parent to compare with")
    figures["parent"] = _knn_f1(both[1], labels, len(names), limits)
    least = figures["parent"] - limits.knn_margin
    return Check("knn", figures["weighted_f1"] >= least, figures, {"weighted_f1": least})


def centre(new: Table, both: tuple[Table, Table] | None, limits: Limits) -> Check:
    """Whether neighbours are chosen by laboratory: share of the own site, robustness index.

    The index (de Jong et al. 2025) is, over the neighbours of labelled items, the number with
    the same label from another site, divided by that and those with another label from the
    same site: 1 where only biology counts, 0 where only the site does.
    """
    ours = new if both is None else both[0]
    names, sites = numbered([item.site for item in ours.items])
    if len(names) < 2:
        return Check("centre", None, note="fewer than two sites: there is no bias to see")
    figures = _site_figures(ours, sites, limits)
    if both is None:
        return Check("centre", None, figures, note="there is no parent to compare with")
    before = _site_figures(both[1], sites, limits)
    if not figures or not before:
        return Check("centre", None, note="every item is of one patient, case or source")
    figures |= {f"parent_{name}": value for name, value in before.items()}
    bounds = {"excess": before["excess"] + limits.bias_margin}
    good = figures["excess"] <= bounds["excess"]
    if "robustness" in figures and "robustness" in before:
        bounds["robustness"] = before["robustness"] - limits.bias_margin
        good = good and figures["robustness"] >= bounds["robustness"]
        return Check("centre", good, figures, bounds)
    return Check("centre", good, figures, bounds, "the robustness index cannot be known")


def common(new: Table, parent: Table) -> tuple[Table, Table]:
    """The items of both versions, with the facts of the new version, in one order."""
    there = {id: at for at, id in enumerate(parent.ids)}
    mine = [at for at, id in enumerate(new.ids) if id in there]
    theirs = [there[new.ids[at]] for at in mine]
    ids, items = [new.ids[at] for at in mine], [new.items[at] for at in mine]
    return (
        Table(ids, items, new.vectors[mine], new.group[mine]),
        Table(ids, items, parent.vectors[theirs], new.group[mine]),
    )


def as_json(results: Sequence[Check]) -> list[dict[str, Any]]:
    """The checks as the version keeps them."""
    return [asdict(check) for check in results]


def _knn_f1(table: Table, labels: Rows, classes: int, limits: Limits) -> float:
    from sklearn.metrics import f1_score

    labelled = np.flatnonzero(labels >= 0)
    queries, every = drawn(labelled, limits.queries), np.arange(len(labels))
    near, scores = neighbours_outside(table.vectors, table.group, queries, every, limits.k)
    voted = votes(np.where(near >= 0, labels[near], -1), scores, classes, "uniform").first
    return float(f1_score(labels[queries], voted, average="weighted", zero_division=0))


def _site_figures(table: Table, sites: Rows, limits: Limits) -> dict[str, float]:
    """Empty where no item can have a neighbour from outside its patient, case and source."""
    _, labels = numbered([item.label for item in table.items])
    items = Origins(table.vectors, sites, labels, table.group)
    found = site_bias(items, drawn(np.flatnonzero(sites >= 0), limits.queries), limits.k)
    if found is None:
        return {}
    share, expected = found.share, found.expected_share
    figures = {"own_site": share, "expected": expected, "excess": share - expected}
    return figures if found.robustness is None else figures | {"robustness": found.robustness}


def _same_share(vectors: Vectors, queries: int) -> float:
    rows = drawn(np.arange(len(vectors)), queries)
    _, scores = search(vectors[rows], vectors, 2)  # the first is the item itself, or its twin
    return float((scores[:, 1] >= SAME).mean())
