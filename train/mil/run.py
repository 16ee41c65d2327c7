"""A case model from the cases of a collection: bags, labels, folds by patient, scores, card."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search.cases.represented import NOT_WHITE
from search.errors import BadQuestion
from search.library.collection import Collection
from search.library.contents import content_digest
from search.library.versions import now
from search.mil.bags import StoredBag, finder_kinds, mean_rows, patient_of, stored_bags
from search.mil.models import Seen, Trained
from search.schemas.cases import Value
from search.schemas.mil import FACTORS, CellKind, Factor, MilModel, MilPlan
from train.mil.factors import of_cell
from train.mil.fit import Cases, Fitted, fit
from train.mil.scores import Judged, judged, judged_survival

LIKE = 0.01
"""Share of the training cases that would themselves be called unlike all others."""
YES, NO = {"yes", "true", "1", "1.0", "y"}, {"no", "false", "0", "0.0", "n"}
Progress = Callable[[int, int], None]


class CannotTrain(BadQuestion):
    """A collection whose cases do not allow the model that is wanted."""


@dataclass(frozen=True)
class Gathered:
    """The cases that a model can be trained on."""

    bags: list[StoredBag]
    patients: NDArray[np.str_]
    labels: NDArray[np.int64]
    """Class numbers; of survival, whether the event came."""
    classes: tuple[str, ...]
    """None of survival."""
    times: NDArray[np.float64] | None
    notes: tuple[str, ...]


def train(
    collection: Collection, plan: MilPlan, progress: Progress = lambda done, total: None
) -> Trained:
    """Train a case model on the cases of a collection that have a label; nothing is kept yet.

    Raises:
        CannotTrain: too few cases or patients, or a column without values.
        BadQuestion: a case of several patients.
    """
    before = {
        "content": content_digest(collection.folder),
        "records": collection.cases.digest() or "",
    }  # what is written while it trains makes it stale
    gathered = gather(collection, plan)
    smallest = _fewest_patients(gathered)
    folds = min(plan.folds, smallest)
    notes = list(gathered.notes)
    if folds < plan.folds:
        notes.append(f"{folds} folds instead of {plan.folds}: a class has {smallest} patients.")
    plan = plan.model_copy(update={"folds": folds})
    cases = Cases(
        [one.vectors for one in gathered.bags],
        gathered.patients,
        gathered.labels,
        gathered.times,
        factors_of(collection, gathered.bags, plan) if plan.factors else (),
    )
    fitted = fit(cases, plan, progress)
    found = (
        judged(fitted, gathered.labels, gathered.patients, gathered.classes, plan)
        if gathered.times is None
        else judged_survival(fitted, gathered.times, gathered.labels, gathered.patients)
    )
    made = _assembled(collection, plan, gathered, fitted, found, tuple(notes))
    return replace(made, card=made.card.model_copy(update=before))


def gather(collection: Collection, plan: MilPlan) -> Gathered:
    """The cases with a label, in order of name.

    Raises:
        CannotTrain: fewer than two classes with two patients each, or no events.
        BadQuestion: a case of several patients.
    """
    kinds = finder_kinds(collection) if plan.found == "white" else {}
    bags = stored_bags(
        collection, plan.by, plan.where, plan.cells, lambda id: kinds.get(id) in NOT_WHITE
    )
    if plan.task == "survival":
        return _with_times(collection, plan, bags)
    found = {
        name: str(value)
        for name, bag in sorted(bags.items())
        if (value := _value(collection, plan, bag, plan.label)) is not None
    }
    notes = _without(len(bags) - len(found), plan, plan.label)
    patients = {name: patient_of(bags[name]) for name in found}
    of_label: dict[str, set[str]] = {}
    for name, label in found.items():
        of_label.setdefault(label, set()).add(patients[name])
    classes = sorted(label for label, own in of_label.items() if len(own) > 1)
    for label in sorted(set(of_label) - set(classes)):
        notes.append(f"{label!r} is left out: it has one patient, and none could be held out.")
    if len(classes) < 2:
        raise CannotTrain(
            f"a case model needs two labels with two patients each in column {plan.label!r}, got "
            f"{_counted(of_label)}; import them with `hemaseek cases import`, or send `values`"
        )
    names = [name for name, label in found.items() if label in classes]
    return Gathered(
        [bags[name] for name in names],
        np.array([patients[name] for name in names]),
        np.array([classes.index(found[name]) for name in names], np.int64),
        tuple(classes),
        None,
        tuple(notes),
    )


def _with_times(collection: Collection, plan: MilPlan, bags: dict[str, StoredBag]) -> Gathered:
    kept, times, events = [], [], []
    for _, bag in sorted(bags.items()):
        time = _value(collection, plan, bag, plan.label)
        event = _value(collection, plan, bag, plan.event)
        if time is not None and event is not None:
            kept.append(bag)
            times.append(_time(bag.name, plan.label, time))
            events.append(_flag(bag.name, plan.event, event))
    patients = np.array([patient_of(bag) for bag in kept])
    came = len(set(patients[np.array(events, bool)])) if kept else 0
    if came < 4:
        raise CannotTrain(
            f"a survival model needs the event of at least 4 patients, got {came} of {len(kept)} "
            f"cases with {plan.label!r} and {plan.event!r}"
        )
    return Gathered(
        kept,
        patients,
        np.array(events, np.int64),
        (),
        np.array(times, np.float64),
        tuple(_without(len(bags) - len(kept), plan, f"{plan.label} and {plan.event}")),
    )


def _value(collection: Collection, plan: MilPlan, bag: StoredBag, column: str) -> Value | None:
    """Of the plan's own values, else of the records of its cases; `None` where they differ."""
    sent = plan.values.get(bag.name, {}).get(column)
    if sent is not None and sent != "":
        return sent
    names = bag.cases if plan.by != "case" else [bag.name]
    found = {one.value(column) for one in collection.cases.of(names).values()} - {None}
    return found.pop() if len(found) == 1 else None


def _without(n: int, plan: MilPlan, column: str) -> list[str]:
    many = f"{n:,} of the collection's bags ({plan.by}) have" if n > 1 else f"One {plan.by} has"
    return [f"{many} no one value of {column}, and is left out."] if n else []


def _counted(of_label: dict[str, set[str]]) -> str:
    words = [f"{label!r} with {len(own)}" for label, own in sorted(of_label.items())[:5]]
    return ", ".join(words) or "none"


def _time(case: str, column: str, value: Value) -> float:
    try:
        time = float(value)
    except ValueError:
        time = -1.0
    if not 0 <= time < float("inf"):
        raise CannotTrain(
            f"case {case!r}: {column!r} must be a time of 0 or more in one unit, got {value!r}"
        )
    return time


def _flag(case: str, column: str, value: Value) -> bool:
    word = str(value).strip().lower()
    if word not in YES | NO:
        raise CannotTrain(f"case {case!r}: {column!r} must be yes or no, got {value!r}")
    return word in YES


def _fewest_patients(gathered: Gathered) -> int:
    """Of any class (of survival: with the event)."""
    own = [
        len(np.unique(gathered.patients[gathered.labels == one]))
        for one in np.unique(gathered.labels)
        if gathered.times is None or one == 1
    ]
    return min(own)


def factors_of(
    collection: Collection, bags: Sequence[StoredBag], plan: MilPlan
) -> list[NDArray[np.float64]]:
    """The plan's factors of every cell: for each bag cells x factors, NaN where not known."""
    return [
        np.array([_factors(collection, bag, at, plan) for at in range(len(bag.items))])
        for bag in bags
    ]


def _factors(collection: Collection, bag: StoredBag, at: int, plan: MilPlan) -> list[float]:
    item = bag.items[at]
    side = None
    if item.bbox is not None:
        side = max(item.bbox.w, item.bbox.h) * (item.um_per_px or 1.0)
    known: dict[Factor, float] = {"cells": float(np.log(len(bag.items)))}
    content = collection.rows.thumbnail(item.id)
    if content:
        with Image.open(BytesIO(content)) as picture:
            known |= of_cell(np.asarray(picture.convert("RGB")), side)
    return [known.get(one, float("nan")) for one in FACTORS if one in plan.factors]


def _assembled(
    collection: Collection,
    plan: MilPlan,
    gathered: Gathered,
    fitted: Fitted,
    found: Judged,
    notes: tuple[str, ...],
) -> Trained:
    means = mean_rows([bag.vectors for bag in gathered.bags])
    seen = Seen(
        fold={str(one): int(at) for one, at in zip(gathered.patients, fitted.fold, strict=True)},
        cases={
            bag.name: str(label if gathered.times is None else gathered.times[at])
            for at, (bag, label) in enumerate(zip(gathered.bags, gathered.labels, strict=True))
        },
        risks=tuple(sorted(float(one) for one in fitted.outputs[:, 0]))
        if gathered.times is not None
        else (),
        far=_far(means, gathered.patients),
    )
    unknown = sum(not bag.patients for bag in gathered.bags)
    if unknown:
        notes += (
            f"{unknown:,} cases have no patient: two of one patient may lie on both sides of a "
            "split, and the scores be too good.",
        )
    card = MilModel(
        id="",
        name=plan.name,
        collection=collection.name,
        encoder=collection.card.id,
        fingerprint=collection.card.fingerprint,
        model_fingerprint="",
        data_fingerprint=_digest(collection, plan, gathered),
        content="",
        plan=plan.model_copy(update={"values": {}}),
        classes=gathered.classes,
        made=now(),
        cases=len(gathered.bags),
        patients=len(np.unique(gathered.patients)),
        cells=sum(len(bag.items) for bag in gathered.bags),
        scores=found.scores,
        temperature=found.temperature,
        threshold=found.threshold,
        notes=(*notes, *found.notes),
        kinds=_kinds(collection, gathered),
    )
    return Trained(card, fitted.networks, seen, means)


def _kinds(collection: Collection, gathered: Gathered) -> tuple[CellKind, ...]:
    """What a finder took the cells for that a model is trained on."""
    kinds = finder_kinds(collection)
    seen = {kinds.get(item.id) for bag in gathered.bags for item in bag.items}
    return tuple(one for one in get_args(CellKind) if one in seen)


def _far(means: NDArray[np.float32], patients: NDArray[np.str_]) -> float:
    """The cosine to the nearest case of another patient that all but `LIKE` of the cases reach."""
    cosines = means @ means.T
    cosines[patients[:, None] == patients[None, :]] = -1
    return float(np.quantile(cosines.max(axis=1), LIKE))


def _digest(collection: Collection, plan: MilPlan, gathered: Gathered) -> str:
    """Of the encoder, the plan, the cases with their labels, and the ids of their cells."""
    times = gathered.labels if gathered.times is None else gathered.times
    facts: list[Any] = [
        collection.card.fingerprint,
        plan.model_dump(mode="json", exclude={"values", "name"}),
        gathered.classes,
        [
            (bag.name, str(patient), int(label), float(time), [item.id for item in bag.items])
            for bag, patient, label, time in zip(
                gathered.bags, gathered.patients, gathered.labels, times, strict=True
            )
        ],
    ]
    return sha256(json.dumps(facts).encode()).hexdigest()[:16]
