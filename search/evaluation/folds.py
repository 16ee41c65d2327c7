"""The folds of an evaluation's plan: what is train and what is test; no group is on both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from search.errors import BadQuestion
from search.evaluation import splits
from search.evaluation.labelled import UNDATED, Cells
from search.evaluation.splits import Fold
from search.neighbours.groups import Rows
from search.schemas.evaluations import EvaluationPlan, SplitFacts, SplitName
from search.text import count
from search.transforms.contract import Vectors

WORDS = {
    "leave-one-patient-out": "each patient left out in turn",
    "leave-one-source-out": "each source left out in turn",
    "leave-one-site-out": "each site left out in turn",
    "one-site-in": "each site alone in train, each other one tested in turn",
}


class CannotEvaluate(BadQuestion):
    """Data that cannot be evaluated by this plan."""


@dataclass(frozen=True)
class Split:
    """What is train and what is test."""

    facts: SplitFacts
    folds: Sequence[Fold]
    """One without a name where each patient or source is left out in turn."""
    probe: Sequence[Fold]
    notes: tuple[str, ...] = ()
    vectors: Callable[[Fold], Vectors] | None = None
    """Vectors (n x dim) under the transform of a fold; `None` for those that are stored."""

    @property
    def in_turn(self) -> bool:
        """Whether each patient or source is left out in turn."""
        return not self.folds[0].name


def make_split(cells: Cells, plan: EvaluationPlan) -> Split:
    """The folds of a plan; no group lies on both sides of one.

    Raises:
        CannotEvaluate: the data does not allow the split.
    """
    some = any(patient is not None for patient in cells.patients)
    name: SplitName = plan.split
    if name == "auto":
        name = "leave-one-patient-out" if some else "leave-one-source-out"
    if plan.adapt is not None and name in ("leave-one-patient-out", "leave-one-source-out"):
        name = "stratified"  # a transform is fitted for each fold
    everything = np.arange(len(cells))
    notes: list[str] = []
    unit = "patient" if some else "source"
    cutoff = None
    try:
        if name in ("leave-one-patient-out", "leave-one-source-out"):
            if name == "leave-one-patient-out" and not some:
                raise CannotEvaluate(
                    "no item has a patient id, so that no patient can be left out; "
                    "use leave-one-source-out, and read the figures as being of sources"
                )
            if name == "leave-one-source-out" and some:
                notes.append("the own patient and case were left out with each source")
            folds = [Fold("", everything, everything)]
            words = WORDS[name]
        elif name in ("leave-one-site-out", "one-site-in"):
            folds, words = _by_site(cells, notes, name), WORDS[name]
        elif name == "temporal":
            cutoff = plan.cutoff or _latest_quarter(cells)
            folds = _by_day(cells, cutoff, notes)
            words = f"items before {cutoff} are the references, later ones the queries"
        else:
            folds = _stratified(cells, plan)
            words = f"{plan.folds} stratified folds by {unit}"
        in_turn = not folds[0].name
        probe = (_stratified(cells, plan) if in_turn else folds) if plan.probe else []
    except splits.BadSplit as error:
        raise CannotEvaluate(str(error)) from error
    facts = SplitFacts(
        name=name,
        words=words,
        folds=len(np.unique(cells.group)) if in_turn else len(folds),
        probe=(f"{len(probe)} stratified folds by {unit}" if in_turn else words)
        if plan.probe
        else None,
        cutoff=cutoff,
        seed=plan.seed,
    )
    return Split(facts, folds, probe, tuple(notes))


def uploaded_split(cells: Cells, plan: EvaluationPlan) -> Split:
    """The collection is train, the uploaded set test; groups in both are left out of train."""
    fold = _fold(cells, "uploaded", np.flatnonzero(cells.own), ~cells.own)
    words = "the collection is the reference, the uploaded set the queries"
    facts = SplitFacts(name="uploaded", words=words, folds=1, probe=words, seed=plan.seed)
    dropped = int(cells.own.sum()) - len(fold.train)
    verb = "shares" if dropped == 1 else "share"
    notes = (
        f"{count(dropped, 'item')} of the collection {verb} a patient, case or source with the "
        "set: left out",
    )
    return Split(facts, [fold], [fold] if plan.probe else [], notes if dropped else ())


def _stratified(cells: Cells, plan: EvaluationPlan) -> list[Fold]:
    words = cells.group.astype(str)
    count = min(plan.folds, len(np.unique(words)))
    if count < 2:
        raise CannotEvaluate(
            "every item belongs to one patient, case or source; nothing is left to train on"
        )
    if len(np.unique(words)) == len(cells):
        return splits.stratified(cells.labels, count, plan.seed)
    return splits.grouped(cells.labels, words, count, plan.seed)


def _by_site(cells: Cells, notes: list[str], split: SplitName) -> list[Fold]:
    sites = np.array([site if site is not None else "" for site in cells.sites], np.str_)
    known = np.array([site is not None for site in cells.sites])
    names = np.unique(sites[known])
    if len(names) < 2:
        raise CannotEvaluate(
            f"{split} needs two sites, got {len(names)}; "
            "give --site when you ingest, or use another split"
        )
    if not known.all():
        notes.append(f"{int((~known).sum())} items without a site were left out")
    if split == "one-site-in":
        notes.append(f"each item was a query {len(names) - 1} times, once for each other site")
        trains = [(f"{a} to {b}", sites == a, sites == b) for a in names for b in names if a != b]
    else:
        trains = [(str(name), known & (sites != name), sites == name) for name in names]
    folds = [_fold(cells, name, np.flatnonzero(train), test) for name, train, test in trains]
    dropped = sum(
        int(train.sum()) - len(f.train) for (_, train, _), f in zip(trains, folds, strict=True)
    )
    if dropped:
        notes.append(
            f"{dropped} times a reference was left out: its patient, case or source was held out"
        )
    return folds


def _by_day(cells: Cells, cutoff: date, notes: list[str]) -> list[Fold]:
    at = (cutoff - date(1970, 1, 1)).days
    dated = cells.days != UNDATED
    early = np.flatnonzero(dated & (cells.days < at))
    late = dated & (cells.days >= at)
    if not len(early) or not late.any():
        raise CannotEvaluate(
            f"of {int(dated.sum())} dated items {len(early)} are before {cutoff} and "
            f"{int(late.sum())} are not; both must be at least one: choose another cutoff"
        )
    if not dated.all():
        notes.append(f"{int((~dated).sum())} items without a date were left out")
    fold = _fold(cells, f"from {cutoff}", early, late)
    if len(fold.train) < len(early):
        notes.append(
            f"{len(early) - len(fold.train)} earlier items share a patient, case or source with "
            "later ones: left out"
        )
    return [fold]


def _latest_quarter(cells: Cells) -> date:
    dated = np.sort(cells.days[cells.days != UNDATED])
    if not len(dated):
        raise CannotEvaluate("no item has a date of acquisition; use another split")
    return date(1970, 1, 1) + timedelta(days=int(dated[(3 * len(dated)) // 4]))


def _fold(cells: Cells, name: str, train: Rows, of: NDArray[np.bool_]) -> Fold:
    """A fold of the test rows that `of` marks, and of the train rows of other groups."""
    queries = np.flatnonzero(of)
    train = train[~np.isin(cells.group[train], cells.group[queries])]
    if not len(train):
        raise CannotEvaluate(
            f"fold {name!r}: everything outside it shares a patient, case or source with it; "
            "use another split"
        )
    return Fold(name, train, queries)
