"""Adaptations of the index beside the vectors as served, fitted anew in each fold.

    python benchmarks/adaptation.py --cache ~/.cache/hemaseek/vectors --probe --limit 1500

Prints the table of docs/evaluation.md: mean weighted F1 / balanced accuracy over the folds, of the
20-NN vote and, with --probe, of a linear probe. `--time` times `adapt` on drawn vectors instead.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from search.adaptation.comparison import compare, predict
from search.evaluation.metrics import confusion, scores
from search.evaluation.probe import linear_probe
from search.evaluation.splits import Fold, grouped, leave_one_source_out, subset
from search.transforms import adaptation as transforms
from search.transforms.adaptation import Adaptation
from search.transforms.contract import CannotFit, Sample, Vectors
from search.transforms.folds import in_fold
from train.data.datasets import Labelled, read
from train.evaluation.vectors import open_encoder, vectors_of
from train.shipped.data import held_out

KINDS = (None, "align", "metric", "align+metric")
TESTS = (
    ("chula-no-12", "one capture batch held out"),
    ("pbc-bccd", "PBC to BCCD"),
    ("pbc", "5 folds by image"),
    ("chula-no-12", "5 folds by field"),
    ("lc25000", "5 folds by source tile"),
)


def cells_of(name: str, root: Path, limit: int) -> Labelled:
    """About `limit` cells of a set, whose test cells no shipped encoder has seen but for Chula's.

    Of PBC the held-out quarter; of PBC to BCCD `limit` of PBC, and BCCD whole.
    """
    labelled = read(name, root)
    if name == "pbc":
        labelled = labelled.take(np.flatnonzero(held_out(labelled)), "the held-out quarter")
    drawn = np.arange(len(labelled))
    if name == "pbc-bccd":
        drawn = np.flatnonzero(labelled.sources == "pbc")
    kept = drawn[subset(labelled.labels[drawn], labelled.groups[drawn], limit)]
    rows = np.sort(np.concatenate([kept, np.setdiff1d(np.arange(len(labelled)), drawn)]))
    return labelled.take(rows, f"a subset of {len(rows)} of {len(labelled)}")


def folds_of(labelled: Labelled, words: str) -> list[Fold]:
    """The folds of one line of the table."""
    if words.startswith("5 folds"):
        return grouped(labelled.labels, labelled.groups)
    if labelled.sources is None:
        raise ValueError(f"{labelled.name} has no sources to hold out")
    every = leave_one_source_out(labelled.sources, labelled.groups)
    return [fold for fold in every if fold.name == "bccd"] or every


def sample_of(labelled: Labelled, vectors: Vectors) -> Sample:
    """The set as a transform is fitted on it; its sources are the sites."""
    sites = np.full(len(labelled), "") if labelled.sources is None else labelled.sources
    groups = np.unique(labelled.groups, return_inverse=True)[1]
    return Sample(vectors, sites, labelled.labels, groups)


def line(
    kind: str | None, sample: Sample, card: EncoderCard, folds: list[Fold], probe: bool
) -> str:
    """Scores of one kind in the folds of one test, in per cent."""
    truth = np.unique(sample.labels, return_inverse=True)[1]
    classes, found = int(truth.max()) + 1, []
    for fold in folds:
        vectors = sample.vectors
        if kind is not None:
            vectors = in_fold(kind, sample, card, fold.train, fold.test)
        row = _scored(truth[fold.test], predict(vectors, sample, fold, fold.test), classes)
        if probe:
            fitted = linear_probe(vectors[fold.train], truth[fold.train], vectors[fold.test])
            row += _scored(truth[fold.test], fitted.predicted, classes)
        found.append(row)
    mean = 100 * np.mean(found, axis=0)
    return " | ".join(f"{mean[at]:.1f} / {mean[at + 1]:.1f}" for at in range(0, len(mean), 2))


def _scored(truth: NDArray[np.int64], called: NDArray[np.int64], classes: int) -> list[float]:
    found = scores(confusion(truth, called, classes, unanswered=True))
    return [found["weighted_f1"], found["balanced_accuracy"]]


def timed(rows: int, dim: int) -> None:
    """Print the seconds of processor that fitting takes, and the microseconds of one query."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 12, rows)
    sites = rng.integers(0, 5, rows)
    centres = rng.normal(size=(12, dim)) + 0
    vectors = rng.normal(size=(rows, dim)) + centres[labels] + rng.normal(size=(5, dim))[sites]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    sample = Sample(vectors, sites.astype(str), labels.astype(str), np.arange(rows) // 50)
    parts = (dim // 2, dim - dim // 2)
    card = EncoderCard(id="drawn", architecture="drawn", dim=dim, parts=parts)
    for kind in (*KINDS[1:], "fuse+metric"):
        began = time.process_time()
        compare(kind, sample, card)
        compared = time.process_time()
        fitted = Adaptation.fit(kind, sample, card)
        done = time.process_time()
        fitted.apply(vectors, sample.sites)
        fitted.apply(vectors[:1], np.array([""]))
        applied = time.process_time()
        for row in range(200):
            fitted.apply(vectors[row : row + 1], np.array([""]))
        each = (time.process_time() - applied) / 200
        sys.stdout.write(
            f"{kind}: compared in {compared - began:.1f} s, fitted in {done - compared:.1f} s, "
            f"applied in {applied - done:.1f} s; a query {1e6 * each:.0f} us\n"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default=os.environ.get("HEMASEEK_DATA", "../shared/data"))
    parser.add_argument("--cache", default="~/.cache/hemaseek/vectors")
    parser.add_argument("--encoder", default="hemaseek-s")
    parser.add_argument("--limit", type=int, default=100_000)
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--rival", action="store_true", help="optimal transport between sites")
    given = parser.parse_args()
    if given.time:
        timed(100_000, 384)
        return 0
    compared = KINDS
    if given.rival:
        from transport import Transport

        transforms.KINDS["transport"] = Transport
        compared = (*KINDS, "transport")
    encoder = open_encoder(given.encoder, 0, "cpu")
    for name, words in TESTS:
        labelled = cells_of(name, Path(given.root), given.limit)
        sample = sample_of(labelled, vectors_of(encoder, labelled, Path(given.cache)))
        for kind in compared:
            if kind not in (None, "metric") and labelled.sources is None:
                continue
            try:
                figures = line(kind, sample, encoder.card, folds_of(labelled, words), given.probe)
            except CannotFit as error:
                figures = str(error)
            sys.stdout.write(
                f"| {name} ({len(labelled)}), {words} | {kind or 'as served'} | {figures} |\n"
            )
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
