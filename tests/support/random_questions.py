"""Random questions about the random library, each with the patients that no answer may have."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from random_library import CARD

from search.library.shards import Entry
from search.schemas.cases import CaseAnswer, CaseQuestion, Distance
from search.schemas.filters import Filter
from search.schemas.questions import Question, Refinement


def random_question(rng: np.random.Generator, entries: list[Entry]) -> tuple[Question, set[str]]:
    """A random question about an item, by any of the ways to search, and the patients of it."""
    item = entries[int(rng.integers(len(entries)))].item
    question: dict[str, Any] = {"item": item.id, "k": int(rng.integers(1, 12))}
    way = int(rng.integers(6))
    if way == 1:
        question |= {"group_by": ("patient", "case", "source")[int(rng.integers(3))]}
        question |= {"per_group": int(rng.integers(1, 3))}
    if way == 2:
        question |= {"balance": ("site", "patient")[int(rng.integers(2))]}
    if way == 3 and rng.random() < 0.3:
        question |= {"mmr": float(rng.random())}
    if rng.random() < 0.3:
        question |= {"where": Filter(label=("MY", "SNE")), "exact": bool(rng.integers(2))}
    if rng.random() < 0.2:
        question |= {"exclude": ("patient",)}
    if way >= 4:
        like, unlike = (
            tuple(entries[int(at)].item.id for at in rng.integers(len(entries), size=2))
            for _ in range(2)
        )
        question |= {"like": like, "show_examples": bool(rng.integers(2))}
        question |= {"unlike": unlike} if rng.random() < 0.5 else {}
        if rng.random() < 0.2:
            question |= {"strategy": "best_score"}
        if rng.random() < 0.3:
            question |= {"item": None}
        asked: Question = Refinement(**question)
    else:
        asked = Question(**question)
    start = [asked.item] if asked.item else list(getattr(asked, "like", ()))
    of = {entry.item.id: entry.item.patient for entry in entries}
    return asked, {who for id in start if (who := of[id]) is not None}


def random_case(rng: np.random.Generator, entries: list[Entry]) -> tuple[CaseQuestion, set[str]]:
    """A random question about a stored case, about items or about vectors, and its patients."""
    distances = [one for one in get_args(Distance) if one != "learned"]  # needs a model
    question: dict[str, Any] = {"distance": distances[int(rng.integers(len(distances)))], "k": 3}
    question |= {"candidates": int(rng.integers(1, 9))}
    if rng.random() < 0.3:
        question |= {"where": Filter(label=("MY", "SNE"))}
    by = ("case", "patient", "source")[int(rng.integers(3))]
    start = rng.random()
    members = [entries[int(at)].item for at in rng.integers(len(entries), size=4)]
    if start < 0.5:
        bags = sorted({v for e in entries if (v := getattr(e.item, by)) is not None})
        value = bags[int(rng.integers(len(bags)))]
        members = [e.item for e in entries if getattr(e.item, by) == value]
        question |= {"case": value}
    elif start < 0.8:
        question |= {"items": tuple(item.id for item in members)}
    else:
        whose = next(e for e in entries if e.item.id == members[0].id)
        members = members[:1]
        question |= {"vectors": (tuple(whose.vector.tolist()),), "fingerprint": CARD.fingerprint}
        question |= {"about": {"patient": whose.item.patient}}
    asked = CaseQuestion(by=by, **question)
    return asked, {item.patient for item in members if item.patient is not None}


def patients_of(answer: CaseAnswer) -> set[str]:
    """Every patient that an answer shows, of its cases and of matched cells, or by record."""
    shown = {who for match in answer.cases for who in match.patients}
    paired = {pair.item.patient for match in answer.cases for pair in match.pairs}
    known = {one.patient for match in answer.cases for one in match.records}
    return {who for who in shown | paired | known if who is not None}
