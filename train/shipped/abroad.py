"""How neighbours hold in another laboratory: its cells are queries, the others' references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB, Encoder, Vectors
from encoder.image import resize
from search.evaluation.metrics import bootstrap, confusion, scores
from search.neighbours import exact
from search.votes.knn import nearest_label
from train.data.datasets import Labelled
from train.shipped.labels import shared

K = 20
LEAST = 10
"""Cells that a type needs on either side to be compared."""
ZOOMS = (0.75, 1.33)
"""Times the field of view at which a cell is a query again."""

Side = tuple[Labelled, Vectors]
"""A set and its vectors, row by row."""


def abroad(queries: Side, references: Sequence[Side]) -> dict[str, Any]:
    """The 20-NN vote on the types that both sides have.

    Args:
        queries: The laboratory that was left out.
        references: The others.

    Returns:
        Scores, their intervals by the set's unit (by image where that is one patient), recall and
        number of each type, and the confusion matrix.
    """
    truth = np.array([shared(label) for label in queries[0].labels])
    reference_labels = np.array([shared(label) for side, _ in references for label in side.labels])
    vectors = np.concatenate([rows for _, rows in references])
    both = [
        name
        for name in sorted(set(truth))
        if min((truth == name).sum(), (reference_labels == name).sum()) >= LEAST
    ]
    known, rows = np.isin(reference_labels, both), np.flatnonzero(np.isin(truth, both))
    names, kinds = np.unique(reference_labels[known], return_inverse=True)
    predicted = nearest_label(queries[1][rows], vectors[known], kinds, len(names), K)
    true = np.searchsorted(names, truth[rows])
    matrix = confusion(true, predicted, len(names))
    groups = queries[0].groups[rows]
    if len(set(groups)) < 2:
        groups = np.arange(len(rows)).astype(str)
    intervals = bootstrap(true, predicted, groups, len(names))
    return {
        "queries": len(rows),
        "index": int(known.sum()),
        **scores(matrix),
        "intervals": {name: asdict(interval) for name, interval in intervals.items()},
        "recall": {
            str(name): [float(matrix[at, at] / matrix[at].sum()), int(matrix[at].sum())]
            for at, name in enumerate(names)
        },
        "confusion": matrix.astype(int).tolist(),
    }


def sites(sides: Sequence[Side], seed: int = 0) -> dict[str, float]:
    """Whether laboratories or kinds choose neighbours.

    Of types that all laboratories have, as many cells from each laboratory are drawn.

    Returns:
        The share of the own laboratory among 20 neighbours, what chance would give, and the
        robustness index (de Jong et al. 2025): neighbours of the same kind from elsewhere, over
        those and neighbours of another kind from here.
    """
    labels = [np.array([shared(label) for label in side.labels]) for side, _ in sides]
    common = sorted(set.intersection(*(set(one) for one in labels)))
    rng = np.random.default_rng(seed)
    rows, kind, site = [], [], []
    for name in common:
        found = [np.flatnonzero(one == name) for one in labels]
        many = min(map(len, found))
        for at, own in enumerate(found):
            rows.append(sides[at][1][rng.choice(own, many, replace=False)])
            kind += [name] * many
            site += [at] * many
    vectors, kinds, places = np.concatenate(rows), np.array(kind), np.array(site)
    near = exact.search(vectors, vectors, K + 1)[0][:, 1:]
    own, same = places[near] == places[:, None], kinds[near] == kinds[:, None]
    good, bad = int((same & ~own).sum()), int((~same & own).sum())
    return {
        "cells": len(vectors),
        "own_site": float(own.mean()),
        "expected": (len(vectors) / len(sides) - 1) / (len(vectors) - 1),
        "robustness": good / max(good + bad, 1),
    }


def zoomed(image: RGB, share: float) -> RGB:
    """The middle of a picture, `share` of its side, or with its border mirrored around it."""
    side = min(image.shape[:2])
    if share > 1:
        pad = round((share - 1) * side / 2)
        return np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="symmetric")
    cut = round((1 - share) * side / 2)
    return image[cut : image.shape[0] - cut, cut : image.shape[1] - cut]


def zooms(
    encoder: Encoder, labelled: Labelled, rows: NDArray[np.intp], references: Side
) -> dict[str, Any]:
    """The same cells at other fields of view.

    Returns:
        For each of `ZOOMS`, the share of cells whose 20-NN label stays; and the median cosine of a
        cell cut at 1.5 and at 2.6 times its box, resampled to one field of view.
    """
    images = list(labelled.images(rows))
    names, kinds = np.unique(references[0].labels, return_inverse=True)

    def predicted(pictures: Sequence[RGB]) -> NDArray[np.int64]:
        return nearest_label(encoder.embed(pictures), references[1], kinds, len(names), K)

    first = predicted(images)
    agreed = {
        str(zoom): float((predicted([zoomed(image, zoom) for image in images]) == first).mean())
        for zoom in ZOOMS
    }
    # A wide crop in few pixels and a narrow one in many, brought to the narrow one's field of view
    narrow = [zoomed(image, 0.577) for image in images]
    wide = [zoomed(resize(image, 112, "lanczos"), 0.577) for image in images]
    cosines = (encoder.embed(narrow) * encoder.embed(wide)).sum(1)
    return {"agreement": agreed, "matched_cosine": float(np.median(cosines))}
