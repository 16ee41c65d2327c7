"""Predictions of an evaluation, fold by fold: votes of neighbours, and a linear probe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from search.evaluation.folds import CannotEvaluate, Split
from search.evaluation.labelled import Cells
from search.evaluation.probe import linear_probe
from search.evaluation.ranking import average_precision_at_k
from search.evaluation.scores import Predictions, Task
from search.evaluation.splits import Fold, subset
from search.neighbours.groups import Rows, neighbours_outside
from search.text import count
from search.transforms.contract import CannotFit, Sample, Vectors
from search.transforms.folds import in_fold
from search.votes.knn import votes

Progress = Callable[[int, int], None]
"""Callback with how much is done, of how much; may raise to stop."""


@dataclass
class Steps:
    """How far an evaluation is, and what its parts took."""

    progress: Progress
    total: int = 0
    done: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, count: int) -> None:
        """So much more was done."""
        self.done = min(self.done + count, self.total)
        self.progress(self.done, self.total)

    def look(self, _: int) -> None:
        """Call back without progress, so that it can stop."""
        self.progress(self.done, self.total)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count the time of a part."""
        began = time.perf_counter()
        yield
        took = time.perf_counter() - began
        self.seconds[part] = round(self.seconds.get(part, 0.0) + took, 3)


def by_neighbours(task: Task, split: Split, steps: Steps) -> list[Predictions]:
    """The votes of the `k` nearest references outside the own group, for each `k` of the plan."""
    cells, truth, plan = task.cells, task.truth, task.plan
    wide = max(plan.ks)
    parts: list[tuple[Fold, Rows, Rows, NDArray[np.float32]]] = []
    for fold in split.folds:
        rows = np.intersect1d(fold.test, task.queries)
        before = steps.done

        def report(done: int, before: int = before) -> None:
            steps.add(before + done - steps.done)

        vectors = cells.vectors if split.vectors is None else split.vectors(fold)
        near, cosines = neighbours_outside(vectors, cells.group, rows, fold.train, wide, report)
        parts.append((fold, rows, near, cosines))
    rows = np.concatenate([part[1] for part in parts])
    near = np.concatenate([part[2] for part in parts])
    cosines = np.concatenate([part[3] for part in parts])
    there = np.concatenate([_relevant(cells, truth, part[0], part[1]) for part in parts])
    near_labels = np.where(near >= 0, truth[near], -1)
    relevant = near_labels == truth[rows][:, None]
    found = []
    for k in plan.ks:
        one = votes(
            near_labels[:, :k], cosines[:, :k], len(task.names), plan.weighting, plan.temperature
        )
        empty = int((one.first < 0).sum())
        few = int(((near[:, :k] >= 0).sum(axis=1) < k).sum())
        notes = [f"{count(few, 'item')} had fewer than {count(k, 'neighbour')}"] if few else []
        notes += [f"{count(empty, 'item')} had no neighbour"] if empty else []
        found.append(
            Predictions(
                method=f"{k}-NN",
                k=k,
                rows=rows,
                shares=one.shares,
                first=one.first,
                margin=one.margin,
                tied=one.tied,
                precision=average_precision_at_k(relevant[:, :k], there),
                references=there,
                folds=()
                if split.in_turn
                else tuple((fold.name, len(fold.train), len(part)) for fold, part, _, _ in parts),
                notes=tuple(notes),
            )
        )
    return found


def adapted(cells: Cells, kind: str, card: EncoderCard) -> Callable[[Fold], Vectors]:
    """The vectors of a fold under a transform that was fitted on its train rows."""
    if card.adapted is not None:
        raise CannotEvaluate(
            f"the collection is adapted already ({card.adapted}); go back to the version before "
            "it, and evaluate that with --adapt"
        )
    sites = np.array([site or "" for site in cells.sites], np.str_)
    sample = Sample(cells.vectors, sites, cells.labels, cells.group)

    @lru_cache(maxsize=1)
    def of_rows(train: bytes, test: bytes) -> Vectors:
        rows = (np.frombuffer(part, np.int64) for part in (train, test))
        try:
            return in_fold(kind, sample, card, *rows)
        except CannotFit as error:
            raise CannotEvaluate(str(error)) from error

    return lambda fold: of_rows(fold.train.tobytes(), fold.test.tobytes())


def _relevant(cells: Cells, truth: Rows, fold: Fold, rows: Rows) -> Rows:
    """How many references of each query have its label, its own group left out."""
    classes = int(truth.max()) + 1
    per_class = np.bincount(truth[fold.train], minlength=classes)
    pairs = cells.group[fold.train] * classes + truth[fold.train]
    size = (int(cells.group.max()) + 1) * classes
    own = np.bincount(pairs, minlength=size)[cells.group[rows] * classes + truth[rows]]
    return np.asarray(per_class[truth[rows]] - own)


def by_probe(task: Task, split: Split, steps: Steps) -> Predictions:
    """The predictions of a logistic regression for the test rows of each fold.

    Raises:
        CannotEvaluate: the training rows of a fold have fewer than two labels.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    rows, shares, there, folds, notes = [], [], [], [], []
    cells, truth, plan = task.cells, task.truth, task.plan
    each = max(1, len(task.queries) // 4)
    for fold in split.probe:
        test = np.intersect1d(fold.test, task.queries)
        train = fold.train
        if plan.probe_limit < len(train):
            words = cells.group[train].astype(str)
            train = train[subset(cells.labels[train], words, plan.probe_limit, plan.seed)]
        if len(np.unique(truth[train])) < 2:
            raise CannotEvaluate(f"fold {fold.name}: fewer than two labels to train the probe on")
        steps.look(0)
        if len(test):
            with threadpool_limits(1, "blas"):  # questions are answered beside it, equal sums
                vectors = cells.vectors if split.vectors is None else split.vectors(fold)
                fitted = linear_probe(vectors[train], truth[train], vectors[test])
            part = np.zeros((len(test), len(task.names)))
            part[:, fitted.classes] = fitted.shares
            rows.append(test)
            shares.append(part)
            there.append(_relevant(cells, truth, Fold(fold.name, train, test), test))
            folds.append((fold.name, len(train), len(test)))
            if not fitted.converged:
                notes.append(f"fold {fold.name}: not converged after {fitted.iterations} steps")
        steps.add(each)
    if any(trained < len(f.train) for (_, trained, _), f in zip(folds, split.probe, strict=False)):
        notes.append(f"trained on at most {plan.probe_limit} items of a fold")
    together = np.concatenate(shares)
    order = np.argsort(-together, axis=1, kind="stable")
    at = np.arange(len(together))
    first, second = order[:, 0], order[:, 1]
    margin = together[at, first] - together[at, second]
    return Predictions(
        method="linear probe",
        k=None,
        rows=np.concatenate(rows),
        shares=together,
        first=first,
        margin=margin,
        tied=margin <= 0,
        precision=None,
        references=np.concatenate(there),
        folds=tuple(folds),
        notes=tuple(notes),
    )
