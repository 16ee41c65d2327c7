"""Two encoders fused, beside each alone and beside simpler ways to use both.

    python benchmarks/fusion.py --cache ~/.cache/hemaseek/vectors --partners colour measured

Prints the table of docs/evaluation.md: weighted F1 / balanced accuracy of the 20-NN vote (and with
--probe of a linear probe) over five folds of whole groups, the transform fitted anew in each, and
the paired difference of `fuse` and the best single encoder with its interval, groups drawn. In
each fold that encoder leads which scores better among the train cells. Of PBC the quarter is taken
that the shipped encoder never saw; it was trained on Chula, not on LC25000.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from adaptation import cells_of, sample_of
from numpy.typing import NDArray

from encoder.card import EncoderCard
from search.adaptation.comparison import K, predict
from search.evaluation.metrics import confusion, drawn_matrices, draws, ends, scores, scores_of_many
from search.evaluation.probe import linear_probe
from search.evaluation.splits import Fold, grouped
from search.neighbours.groups import neighbours_outside
from search.neighbours.ranks import DEEP, fused
from search.transforms.contract import Rows, Sample, Vectors, unit
from search.transforms.folds import in_fold
from search.votes.knn import votes
from train.evaluation.vectors import open_encoder, vectors_of

SETS = ("pbc", "chula-no-12", "lc25000")
SCORED = ("weighted_f1", "balanced_accuracy")


def fused_ranks(parts: list[Vectors], sample: Sample, fold: Fold) -> Rows:
    """Labels by the neighbours of both encoders, ranks fused, as a search with `fuse_with` votes:
    by the cosines of the first."""
    truth = np.unique(sample.labels, return_inverse=True)[1]
    both = [
        neighbours_outside(vectors, sample.groups, fold.test, fold.train, DEEP)[0].tolist()
        for vectors in parts
    ]
    rankings = [[[at for at in one if at >= 0] for one in pair] for pair in zip(*both, strict=True)]
    best = np.array([fused(pair)[:K] for pair in rankings])
    scores = np.einsum("nd,nkd->nk", parts[0][fold.test], parts[0][best])
    found = votes(truth[best], scores, int(truth.max()) + 1)
    return np.where(found.tied, -1, found.first)


def by_correlation(alone: list[Vectors], sample: Sample, card: EncoderCard, fold: Fold) -> Vectors:
    """Vectors of one fold, the encoder first that scores better within its train part."""
    truth = np.unique(sample.labels, return_inverse=True)[1]
    inside = Fold("", fold.train, fold.train)
    right = [
        float((predict(rows, sample, inside, fold.train) == truth[fold.train]).mean())
        for rows in alone
    ]
    order = sorted((0, 1), key=lambda at: -right[at])
    lengths = tuple(alone[at].shape[1] for at in order)
    turned = sample.with_vectors(unit(np.concatenate([alone[at] for at in order], axis=1)))
    return in_fold("fuse", turned, replace(card, parts=lengths), fold.train, fold.test)


def methods(
    name: str, partner: str, sample: Sample, card: EncoderCard
) -> Iterator[tuple[str, Callable[[Fold], Vectors | list[Vectors]]]]:
    """What is compared: the vectors of a fold, or several whose ranks are fused."""
    first = card.parts[0] if card.parts else 0
    alone = [unit(sample.vectors[:, :first]), unit(sample.vectors[:, first:])]
    yield name, lambda fold: alone[0]
    yield partner, lambda fold: alone[1]
    yield "behind each other", lambda fold: sample.vectors
    yield "rank fusion", lambda fold: alone
    yield "fuse", lambda fold: by_correlation(alone, sample, card, fold)


def predicted(
    seen: Callable[[Fold], Vectors | list[Vectors]],
    sample: Sample,
    folds: list[Fold],
    probe: bool,
) -> list[Rows]:
    """Labels of every row by the vote, and by the probe where there are vectors for one."""
    truth = np.unique(sample.labels, return_inverse=True)[1]
    called = np.full((2, len(sample)), -1)
    fitted = probe
    for fold in folds:
        vectors = seen(fold)
        if isinstance(vectors, list):
            called[0, fold.test] = fused_ranks(vectors, sample, fold)
            fitted = False
            continue
        called[0, fold.test] = predict(vectors, sample, fold, fold.test)
        if probe:
            found = linear_probe(vectors[fold.train], truth[fold.train], vectors[fold.test])
            called[1, fold.test] = found.predicted
    return [called[0], called[1]] if fitted else [called[0]]


def scored(truth: Rows, called: Rows) -> tuple[float, float]:
    found = scores(confusion(truth, called, int(truth.max()) + 1, unanswered=True))
    return 100 * found["weighted_f1"], 100 * found["balanced_accuracy"]


def difference(truth: Rows, groups: Rows, one: Rows, other: Rows) -> str:
    """How much better `other` is, with 95 % intervals, the same groups drawn for both."""
    drawn, classes = draws(groups, 500), int(truth.max()) + 1
    many: list[dict[str, NDArray[np.float64]]] = [
        scores_of_many(drawn_matrices(truth, called, classes, drawn, unanswered=True))
        for called in (one, other)
    ]
    gains = np.subtract(scored(truth, other), scored(truth, one))
    spans = [ends(100 * (many[1][name] - many[0][name])) for name in SCORED]
    return " / ".join(
        f"{gain:+.1f} ({low:+.1f} to {high:+.1f})"
        for gain, (low, high) in zip(gains, spans, strict=True)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default=os.environ.get("HEMASEEK_DATA", "../shared/data"))
    parser.add_argument("--cache", default="~/.cache/hemaseek/vectors")
    parser.add_argument("--encoder", default="hemaseek-s")
    parser.add_argument("--partners", nargs="+", default=["measured", "colour", "random-vit-s"])
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--limit", type=int, default=1500)
    parser.add_argument("--probe", action="store_true")
    given = parser.parse_args()
    encoder = open_encoder(given.encoder, 0, "cpu")
    for set_name in given.sets:
        labelled = cells_of(set_name, Path(given.root), given.limit)
        first = vectors_of(encoder, labelled, Path(given.cache))
        truth = np.unique(labelled.labels, return_inverse=True)[1]
        folds = grouped(labelled.labels, labelled.groups)
        for partner in given.partners:
            other = open_encoder(partner, 0, "cpu")
            rows = [first, vectors_of(other, labelled, Path(given.cache))]
            lengths = (rows[0].shape[1], rows[1].shape[1])
            card = EncoderCard(
                id=f"{given.encoder}+{partner}",
                architecture="joined",
                dim=sum(lengths),
                parts=lengths,
            )
            sample = sample_of(labelled, unit(np.concatenate(rows, axis=1)))
            calls: dict[str, Rows] = {}
            for name, seen in methods(given.encoder, partner, sample, card):
                found = predicted(seen, sample, folds, given.probe)
                calls[name] = found[0]
                figures = " | ".join("{:.1f} / {:.1f}".format(*scored(truth, one)) for one in found)
                sys.stdout.write(f"| {set_name} ({len(sample)}) | {name} | {figures} |\n")
                sys.stdout.flush()
            best = max((given.encoder, partner), key=lambda name: sum(scored(truth, calls[name])))
            for name in ("rank fusion", "fuse"):
                gain = difference(truth, sample.groups, calls[best], calls[name])
                sys.stdout.write(f"| {set_name} | {name} less {best} | {gain} |\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
