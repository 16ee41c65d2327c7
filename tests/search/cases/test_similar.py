"""Similar cases: bags of cells against plain oracles, own patients left out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from uuid import uuid5

import numpy as np
import pytest
from random_library import CARD, random_entries, random_service

from search.cases import similar
from search.cases.distances import (
    directions,
    histogram,
    max_sims,
    mean_vector,
    transport_distance,
)
from search.cases.relabelled import relabelled
from search.cases.similar import case_facts, prototypes_of, similar_cases
from search.errors import BadQuestion, NoSuchCase
from search.library.reviews import Reviews
from search.library.shards import Entry
from search.schemas.cases import CaseChange, CaseQuestion, CaseRecordsWanted, Distance
from search.schemas.filters import Filter
from search.schemas.items import NAMESPACE, Box, Item, item_id
from search.schemas.questions import About
from search.service import Service

EXCLUDED = ("item", "source", "case", "patient")


@pytest.fixture(name="entries")
def _entries(rng: np.random.Generator) -> list[Entry]:
    return random_entries(rng, 120, patients=8)


@pytest.fixture(name="service")
def _service(tmp_path: Path, entries: list[Entry]) -> Iterator[Service]:
    service = random_service(tmp_path, entries)
    yield service
    service.close()


def bag(entries: list[Entry], value: str) -> np.ndarray:
    rows = np.stack(
        [e.vector for e in sorted(entries, key=lambda e: e.item.id) if e.item.case == value]
    )
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("distance", ["mean", "max_sim", "prototypes", "transport"])
def test_cases_come_in_the_order_of_the_oracle(
    service: Service, entries: list[Entry], distance: Distance
) -> None:
    query = "P1-0"
    others = sorted(
        {e.item.case for e in entries if e.item.case and not e.item.case.startswith("P1")}
    )
    shares = partial(histogram, prototypes=prototypes_of(service.context(), 32))
    measure = {
        "mean": lambda a, b: 1 - mean_vector(a) @ mean_vector(b),
        "max_sim": lambda a, b: max_sims(a @ b.T, [np.ones(len(a))])[0],
        "prototypes": lambda a, b: np.abs(shares(a) - shares(b)).sum() / 2,
        "transport": lambda a, b: transport_distance(a, b, directions(CARD.dim)),
    }[distance]
    wanted = sorted((measure(bag(entries, query), bag(entries, other)), other) for other in others)

    answer = similar_cases(
        service.context(), CaseQuestion(case=query, k=5, distance=distance, exclude=EXCLUDED)
    )

    assert [case.value for case in answer.cases] == [name for _, name in wanted[:5]]
    assert [case.distance for case in answer.cases] == pytest.approx(
        [max(0, far) for far, _ in wanted[:5]], abs=1e-5
    )
    assert answer.complete
    assert answer.compared == len(others)


def test_a_case_uploaded_again_is_nearest_to_itself(service: Service, entries: list[Entry]) -> None:
    rows = bag(entries, "P3-1")

    answer = similar_cases(
        service.context(),
        CaseQuestion(
            vectors=tuple(map(tuple, rows.tolist())),
            fingerprint=CARD.fingerprint,
            exclude=(),
            k=2,
        ),
    )

    assert answer.cases[0].value == "P3-1"
    assert answer.cases[0].distance == pytest.approx(0, abs=1e-5)
    assert answer.differential.origin == "votes"
    assert [pair.score for pair in answer.cases[0].pairs] == pytest.approx(
        [1.0] * min(10, len(rows)), abs=1e-5
    )


def test_equal_vectors_are_left_out_and_counted(service: Service, entries: list[Entry]) -> None:
    rows = bag(entries, "P3-1")

    answer = similar_cases(
        service.context(),
        CaseQuestion(vectors=tuple(map(tuple, rows.tolist())), fingerprint=CARD.fingerprint, k=20),
    )

    assert answer.duplicates >= len(rows)
    assert "P3-1" not in {case.value for case in answer.cases}
    assert answer.patient_exclusion == "impossible"


def test_candidates_are_chosen_by_votes_where_there_are_many(
    service: Service, entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = similar_cases(
        service.context(), CaseQuestion(case="P1-0", k=3, exclude=EXCLUDED, distance="max_sim")
    )
    selected = similar_cases(
        service.context(),
        CaseQuestion(case="P1-0", k=3, candidates=6, exclude=EXCLUDED, distance="max_sim"),
    )

    assert not selected.complete
    assert selected.compared <= 6
    assert selected.cases[0] == everything.cases[0]

    where = Filter(kind=("cell",))
    question = CaseQuestion(case="P1-0", k=3, where=where)
    whole = similar_cases(service.context(), question)
    monkeypatch.setattr(similar, "TOGETHER", 20)  # few cases at once
    parts = similar_cases(service.context(), question)
    assert whole.compared == parts.compared > 3
    assert [one.value for one in whole.cases] == [one.value for one in parts.cases]
    assert whole.duplicates == parts.duplicates


def test_of_cases_that_are_all_as_near_the_same_are_shown_however_many(tmp_path: Path) -> None:
    """150 cases of 6 compositions: 24 are exactly like the query, and more than are looked at."""
    kinds = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    entries = []
    for at in range(150):
        for place, axis in enumerate(kinds[at % 6]):
            source, box = f"{at:032x}", Box(x=20 * place, y=0, w=9, h=9)
            item = Item(id=item_id("m", source, box), dataset="m", source=source, case=f"C{at:03}")
            entries.append(Entry(item, np.eye(CARD.dim, dtype=np.float32)[axis], b""))
    alike = [f"C{at:03}" for at in range(4, 150, 6) if at != 64]
    chosen = sorted(alike, key=lambda name: uuid5(NAMESPACE, f"case|{name}").bytes)
    looked_at: dict[Distance, int] = {"composition": 5 + 8, "max_sim": 64}
    service = random_service(tmp_path, entries)
    try:
        for distance, most in looked_at.items():
            question = CaseQuestion(case="C064", k=5, distance=distance, exclude=EXCLUDED)
            answer = similar_cases(service.context(), question)
            assert [one.value for one in answer.cases] == sorted(chosen[:most])[:5]
            assert [one.distance for one in answer.cases] == pytest.approx([0] * 5, abs=1e-6)
    finally:
        service.close()


def test_matched_cells_and_both_differentials_are_shown(
    service: Service, entries: list[Entry]
) -> None:
    items = {e.item.id: e.item for e in entries}
    answer = similar_cases(
        service.context(), CaseQuestion(case="P2-0", k=2, pairs=3, exclude=EXCLUDED)
    )
    own = [e.item for e in entries if e.item.case == "P2-0"]

    labels = [item.label for item in own if item.label]
    assert answer.differential.shares == {
        label: labels.count(label) / len(labels) for label in answer.differential.shares
    }
    assert answer.differential.unlabelled == len(own) - len(labels)
    for case in answer.cases:
        assert sum(case.differential.shares.values()) == pytest.approx(1)
        assert len({pair.cell for pair in case.pairs}) == len(case.pairs) == 3
        for pair in case.pairs:
            assert pair.query_item is not None
            assert items[pair.query_item].case == "P2-0"
            assert pair.item.case == case.value


def test_slides_are_bags_of_tiles(service: Service, entries: list[Entry]) -> None:
    source = entries[0].item.source

    answer = similar_cases(service.context(), CaseQuestion(by="source", case=source, k=3))

    assert len(answer.cases) == 3
    assert source not in {case.value for case in answer.cases}


def test_every_compared_cell_meets_the_filter(service: Service) -> None:
    answer = similar_cases(
        service.context(),
        CaseQuestion(case="P1-0", k=4, where=Filter(label=("SNE",), site=("site 0", "site 2"))),
    )

    for case in answer.cases:
        assert set(case.differential.shares) == {"SNE"}
        assert set(case.sites) <= {"site 0", "site 2"}


def test_the_patient_given_for_uploaded_cells_is_excluded(
    service: Service, entries: list[Entry]
) -> None:
    question = CaseQuestion(
        vectors=((1.0,) * CARD.dim,),
        fingerprint=CARD.fingerprint,
        about=About(patient="P4"),
        k=50,
    )

    answer = similar_cases(service.context(), question)

    assert "P4" not in {patient for case in answer.cases for patient in case.patients}
    assert answer.patient_exclusion == "applied"


def test_a_record_names_the_patient_of_its_own_cells_alone(
    service: Service, entries: list[Entry]
) -> None:
    cells = service.collection()
    ofs = [next(e.item for e in entries if e.item.case == case) for case in ("P1-0", None)]
    cells.update([item.model_copy(update={"patient": None}) for item in ofs])
    change = CaseChange(case="P1-0", patient="P1")
    cells.cases.change(CaseRecordsWanted(changes=(change,)), cells.store, "key")

    both, one = (
        similar_cases(service.context(), CaseQuestion(items=tuple(item.id for item in some), k=3))
        for some in (ofs, ofs[:1])
    )

    assert (both.patient_exclusion, one.patient_exclusion != "impossible") == ("impossible", True)


def test_a_question_must_start_from_one_thing(service: Service, entries: list[Entry]) -> None:
    with pytest.raises(BadQuestion, match="got 0"):
        similar_cases(service.context(), CaseQuestion())
    with pytest.raises(BadQuestion, match="got 2"):
        similar_cases(service.context(), CaseQuestion(case="P1-0", items=(entries[0].item.id,)))
    with pytest.raises(NoSuchCase, match="nobody"):
        similar_cases(service.context(), CaseQuestion(case="nobody"))
    with pytest.raises(BadQuestion, match="fingerprint"):
        similar_cases(service.context(), CaseQuestion(vectors=((1.0,) * CARD.dim,)))
    with pytest.raises(BadQuestion, match="same length"):
        similar_cases(
            service.context(),
            CaseQuestion(vectors=((1.0,), (1.0, 2.0)), fingerprint=CARD.fingerprint),
        )


def test_the_facts_of_a_case_are_those_of_its_items(service: Service, entries: list[Entry]) -> None:
    own = [e.item for e in entries if e.item.case == "P2-0"]

    facts = case_facts(service.collection(), "case", "P2-0")
    person = case_facts(service.collection(), "patient", "P2")

    assert facts.items == len(own)
    assert facts.patients == ("P2",)
    assert facts.sources == len({item.source for item in own})
    assert len(facts.examples) == min(24, len(own))
    assert set(person.cases) == {"P2-0", "P2-1"}
    with pytest.raises(NoSuchCase, match="P99"):
        case_facts(service.collection(), "patient", "P99")


def test_differentials_of_similar_cases_count_what_reviewers_said(
    service: Service, entries: list[Entry]
) -> None:
    question = CaseQuestion(case="P1-0", k=20)
    before = similar_cases(service.context(), question)
    match = before.cases[0]
    own = [e.item for e in entries if e.item.case == "P1-0"]
    theirs = [e.item for e in entries if e.item.case == match.value]
    reviews = Reviews(service.collection().versions)
    reviews.add([(item, "hairy cell", None) for item in (*own, theirs[0])], "a key", "AB")

    after = similar_cases(service.context(), question)
    recorded = question.model_copy(update={"labels": "recorded"})
    facts = service.context()
    one = case_facts(facts.collection, "case", "P1-0", relabelled(facts, "reviewed"))

    assert after.differential.shares == {"hairy cell": 1.0} == one.differential.shares
    assert after.differential.reviewed == len(own)
    there = after.cases[0].differential
    assert (there.cells + there.unlabelled, there.reviewed) == (len(theirs), 1)
    assert there.shares["hairy cell"] == pytest.approx(1 / there.cells)
    assert [c.value for c in after.cases] == [c.value for c in before.cases]
    as_before = similar_cases(service.context(), recorded)
    assert as_before.model_copy(update={"seconds": {}}) == before.model_copy(update={"seconds": {}})
