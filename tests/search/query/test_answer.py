"""Answers against plain oracles, and what must be true of every answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_library import CARD, random_entries, random_service
from random_questions import patients_of, random_case, random_question

from search.cases.count import count_case
from search.cases.similar import similar_cases
from search.errors import BadQuestion, NoSuchItem
from search.library.reviews import Reviews
from search.library.shards import Entry
from search.query.answer import answer as search
from search.query.answer import answer_with_vote
from search.query.context import Context
from search.query.searcher import Searcher
from search.schemas.answers import Hit
from search.schemas.cases import CaseChange, CaseQuestion, CaseRecordsWanted, CountQuestion
from search.schemas.filters import Filter
from search.schemas.items import Item
from search.schemas.questions import RELATIONS, About, Question, Refinement
from search.service import Service

EXCLUDED = ("item", "source", "case", "patient")


@pytest.fixture(name="entries")
def _entries(rng: np.random.Generator) -> list[Entry]:
    return random_entries(rng, 80)


@pytest.fixture(name="service")
def _service(tmp_path: Path, entries: list[Entry]) -> Iterator[Service]:
    service = random_service(tmp_path, entries)
    yield service
    service.close()


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def oracle(entries: list[Entry], question: Question) -> list[tuple[Item, float]]:
    """Every item that may be a hit of an item question, in order: slow and plain."""
    query = next(e for e in entries if e.item.id == question.item)
    own: dict[str, Any] = {"ids": (query.item.id,)}
    own |= {n: (v,) for n in EXCLUDED[1:] if (v := getattr(query.item, n)) is not None}
    named = {("ids" if n == "item" else n) for n in question.exclude}
    excluded = Filter(**{name: value for name, value in own.items() if name in named})
    found = [
        (e.item, float(unit(e.vector) @ unit(query.vector)))
        for e in entries
        if question.where.meets(e.item)
        and not excluded.hits(e.item)
        and not question.not_these.hits(e.item)
    ]
    return sorted(found, key=lambda pair: (-round(pair[1], 5), pair[0].id))


@pytest.mark.parametrize("by", ["patient", "case", "source"])
def test_groups_are_those_of_the_oracle_with_exact_counts(
    service: Service, entries: list[Entry], by: Any
) -> None:
    for entry in entries[::4]:
        question = Question(
            item=entry.item.id,
            k=3,
            group_by=by,
            exclude=EXCLUDED,
            where=Filter(label=("MY", "SNE")),
        )
        allowed = [pair for pair in oracle(entries, question) if getattr(pair[0], by) is not None]
        sizes: dict[str, int] = {}
        for item, _ in allowed:
            sizes[getattr(item, by)] = sizes.get(getattr(item, by), 0) + 1

        answer = search(service.context(), question)

        assert [group.value for group in answer.groups] == list(sizes)[:3]
        assert [group.items for group in answer.groups] == list(sizes.values())[:3]
        assert [hit.item.id for hit in answer.hits] == [g.hits[0].item.id for g in answer.groups]
        for group in answer.groups:
            best = next(score for item, score in allowed if getattr(item, by) == group.value)
            assert group.score == pytest.approx(best, abs=1e-5)


def test_each_group_shows_its_best_hits(service: Service, entries: list[Entry]) -> None:
    question = Question(
        item=entries[3].item.id, k=2, group_by="patient", per_group=4, exclude=EXCLUDED
    )

    answer = search(service.context(), question)

    for group in answer.groups:
        wanted = [i.id for i, _ in oracle(entries, question) if i.patient == group.value][:4]
        assert [hit.item.id for hit in group.hits] == wanted
    assert len(answer.hits) == sum(len(group.hits) for group in answer.groups)


def test_a_giant_group_does_not_hide_the_others(tmp_path: Path, rng: np.random.Generator) -> None:
    entries = random_entries(rng, 80)
    query = entries[0].vector
    giant = [
        Entry(
            e.item.model_copy(update={"patient": "giant", "case": "giant"}),
            query + np.asarray(rng.normal(0, 0.01, CARD.dim), np.float32),
            e.thumbnail,
        )
        for e in entries[20:]
    ]
    service = random_service(tmp_path, entries[:20] + giant)
    try:
        question = Question(
            vector=tuple(query.tolist()), fingerprint=CARD.fingerprint, k=4, group_by="patient"
        )
        values = [group.value for group in search(service.context(), question).groups]
        patients = {e.item.patient for e in entries[:20]} - {None}

        assert values[0] in {"giant", entries[0].item.patient}
        assert len(set(values)) == len(values) == min(4, len(patients) + 1)
    finally:
        service.close()


def test_facets_count_what_may_be_a_hit(service: Service, entries: list[Entry]) -> None:
    for entry in entries[::5]:
        question = Question(
            item=entry.item.id,
            k=1,
            facets=("label", "site", "patient"),
            exclude=EXCLUDED,
            not_these=Filter(label=("LY",), patient=("P1", "P2")),
        )
        allowed = oracle(entries, question)

        answer = search(service.context(), question)

        for name in question.facets:
            counts: dict[str, int] = {}
            for item, _ in allowed:
                if (value := getattr(item, name)) is not None:
                    counts[value] = counts.get(value, 0) + 1
            assert answer.facets[name] == counts
            assert list(answer.facets[name].values()) == sorted(counts.values(), reverse=True)


def test_a_balanced_answer_has_no_more_of_a_site_than_its_share(
    service: Service, entries: list[Entry]
) -> None:
    sites = [entry.item.site for entry in entries]
    for entry in entries[::8]:
        answer = search(service.context(), Question(item=entry.item.id, k=6, balance="site"))
        plain = search(service.context(), Question(item=entry.item.id, k=80))

        found = [hit.item.site for hit in answer.hits]
        assert len(found) == 6
        for site in set(found):
            allowed = int(np.ceil(sites.count(site) * 6 / len(sites)))
            supply = [hit for hit in plain.hits if hit.item.site == site]
            assert found.count(site) <= allowed or len(plain.hits) - len(supply) < 6
        assert [hit.score for hit in answer.hits] == sorted(
            (hit.score for hit in answer.hits), reverse=True
        )


def test_the_own_site_is_shown_against_what_is_to_be_expected(
    service: Service, entries: list[Entry]
) -> None:
    entry = next(e for e in entries if e.item.site == "site 1")
    where = Filter(label=("MY", "SNE"))
    own = {"source": entry.item.source, "case": entry.item.case, "patient": entry.item.patient}
    met = [
        e
        for e in entries
        if where.meets(e.item)
        and not any(value and getattr(e.item, name) == value for name, value in own.items())
    ]

    share = search(service.context(), Question(item=entry.item.id, k=10, where=where)).own_site

    assert share is not None
    assert share.site == "site 1"
    assert share.expected == sum(e.item.site == "site 1" for e in met) / len(met)
    nobody = Question(vector=(1.0,) * CARD.dim, fingerprint=CARD.fingerprint)
    assert search(service.context(), nobody).own_site is None
    answer = nobody.model_copy(update={"about": About(site="site 0")})
    assert search(service.context(), answer).own_site is not None


def test_diversity_keeps_the_nearest_first(service: Service, entries: list[Entry]) -> None:
    plain = search(service.context(), Question(item=entries[5].item.id, k=5))
    alike = search(service.context(), Question(item=entries[5].item.id, k=5, mmr=1.0))
    varied = search(service.context(), Question(item=entries[5].item.id, k=5, mmr=0.2))

    assert alike.hits == plain.hits
    assert varied.hits[0] == plain.hits[0]
    assert varied.hits != plain.hits


def test_two_orders_at_once_are_refused(service: Service, entries: list[Entry]) -> None:
    with pytest.raises(BadQuestion, match="mmr and balance"):
        search(service.context(), Question(item=entries[0].item.id, mmr=0.5, balance="site"))


def test_no_answer_ever_has_the_own_patient(tmp_path: Path, rng: np.random.Generator) -> None:
    for library in range(4):
        entries = random_entries(rng, 50)
        service = random_service(tmp_path / str(library), entries)
        try:
            for _ in range(100):
                question, patients = random_question(rng, entries)

                answer = search(service.context(), question)

                assert not patients & {hit.item.patient for hit in answer.hits}
                assert not patients & {
                    g.value for g in answer.groups if question.group_by == "patient"
                }
                assert question.item not in {hit.item.id for hit in answer.hits} or (
                    question.exclude == ("patient",) and not patients
                )
            for _ in range(20):
                case, patients = random_case(rng, entries)

                assert not patients & patients_of(similar_cases(service.context(), case))
        finally:
            service.close()


def test_equal_questions_have_equal_answers(
    tmp_path: Path, rng: np.random.Generator, entries: list[Entry]
) -> None:
    first = random_service(tmp_path / "one", entries)
    second = random_service(tmp_path / "two", list(reversed(entries)))
    try:
        for _ in range(60):
            question, _ = random_question(rng, entries)
            one, other = (
                search(service.context(), question).model_dump(exclude={"seconds"})
                for service in (first, second)
            )
            assert one == other
    finally:
        first.close()
        second.close()


def test_a_patient_given_for_a_stored_item_is_excluded_too(
    service: Service, entries: list[Entry]
) -> None:
    unknown = next(e.item for e in entries if e.item.patient is None)

    answer = search(service.context(), Question(item=unknown.id, k=80, about=About(patient="P1")))

    assert "P1" not in {hit.item.patient for hit in answer.hits}
    assert answer.patient_exclusion == "partial"


@pytest.fixture(name="numbered")
def _numbered(tmp_path: Path, rng: np.random.Generator) -> Iterator[Service]:
    """Patients with leading zeros, as registries write them."""
    names = ("007", "P-08", "Müller 9")
    entries = [
        replace(e, item=e.item.model_copy(update={"patient": names[at % 3]}))
        for at, e in enumerate(random_entries(rng, 30))
    ]
    service = random_service(tmp_path / "numbered", entries)
    yield service
    service.close()


def answered(service: Service, **about: Any) -> Any:
    question = Question(
        vector=(1.0,) * CARD.dim, fingerprint=CARD.fingerprint, about=About(**about), k=5
    )
    return search(service.context(), question)


@pytest.mark.parametrize(
    ("typed", "stored"), [("7", "007"), ("7.0", "007"), ("p08", "P-08"), ("MÜLLER-9", "Müller 9")]
)
def test_a_patient_in_another_spelling_is_never_reported_as_excluded(
    numbered: Service, typed: str, stored: str
) -> None:
    answer = answered(numbered, patient=typed)

    assert answer.patient_exclusion == "impossible"
    assert any(
        f"No stored item is of patient '{typed}'" in warning and f"'{stored}'" in warning
        for warning in answer.warnings
    )


@pytest.mark.parametrize("typed", ["007", "007 ", unicodedata.normalize("NFD", "Müller 9")])
def test_blanks_and_unicode_forms_are_no_other_spelling(numbered: Service, typed: str) -> None:
    answer = answered(numbered, patient=typed)

    assert answer.patient_exclusion == "applied"
    assert {hit.item.patient for hit in answer.hits}.isdisjoint(
        {"007"} if "7" in typed else {"Müller 9"}
    )


def test_a_patient_whom_no_item_has_is_reported(numbered: Service) -> None:
    answer = answered(numbered, patient="Q1")

    assert answer.patient_exclusion == "applied"
    assert "No stored item is of patient 'Q1', so none had to be left out." in answer.warnings


@pytest.mark.parametrize("text", ["nan", "None", "NA", "n/a"])
def test_a_word_for_nothing_is_no_patient(numbered: Service, text: str) -> None:
    answer = answered(numbered, patient=text)

    assert answer.patient_exclusion == "impossible"
    assert f"'{text}' was read as: the patient is not known." in answer.warnings


def test_an_exclusion_that_matches_nothing_is_reported(numbered: Service) -> None:
    question = Question(
        vector=(1.0,) * CARD.dim,
        fingerprint=CARD.fingerprint,
        not_these=Filter(patient=("p8", "007")),
    )
    answer = search(numbered.context(), question)

    assert [w for w in answer.warnings if "'p8'" in w and "'P-08'" in w]
    assert not [w for w in answer.warnings if "'007'" in w]


def test_cases_are_compared_under_the_same_rule(numbered: Service) -> None:
    question = CaseQuestion(
        vectors=((1.0,) * CARD.dim,), fingerprint=CARD.fingerprint, about=About(patient="7")
    )
    answer = similar_cases(numbered.context(), question)

    assert answer.patient_exclusion == "impossible"
    assert any("'007'" in warning for warning in answer.warnings)


def test_an_item_that_is_not_there_is_named(service: Service) -> None:
    missing = "00000000-0000-5000-8000-000000000000"

    with pytest.raises(NoSuchItem, match=missing):
        search(service.context(), Question(item=missing))
    with pytest.raises(NoSuchItem, match=missing):
        search(service.context(), Refinement(like=(missing,)))


def test_duplicates_are_excluded_unless_allowed() -> None:
    assert "duplicate" in RELATIONS
    assert Question(item=None).exclude == RELATIONS


def test_every_item_belongs_to_one_group_by_patient_else_case_else_source(
    service: Service, entries: list[Entry]
) -> None:
    def key(item: Item) -> tuple[str, str]:
        names = ("patient", "case", "source")
        return next((n, str(v)) for n in names if (v := getattr(item, n)) is not None)

    for entry in entries[::8]:
        question = Question(item=entry.item.id, k=50, group_by="group", exclude=EXCLUDED)
        allowed = oracle(entries, question)
        sizes: dict[tuple[str, str], int] = {}
        for item, _ in allowed:
            sizes[key(item)] = sizes.get(key(item), 0) + 1

        answer = search(service.context(), question)

        assert [(one.by, one.value) for one in answer.groups] == list(sizes)
        assert all(
            one.items == sizes["patient", one.value] for one in answer.groups if one.by == "patient"
        )
        assert answer.searched == len(allowed)


def test_there_is_no_vote_under_a_filter_by_label(service: Service, entries: list[Entry]) -> None:
    for filtered in ({"where": Filter(label=("MY",))}, {"not_these": Filter(label=("MY",))}):
        question = Question(item=entries[0].item.id, k=5, **filtered)  # type: ignore[arg-type]

        voted = answer_with_vote(service.context(), question)

        assert (voted.vote.label, voted.vote.shares, voted.sure) == (None, {}, False)
        assert "No vote" in voted.reason
        assert voted.answer.hits


def test_a_patient_whom_only_the_records_of_cases_name_is_left_out(
    service: Service, entries: list[Entry]
) -> None:
    cells = service.collection()
    items = [e.item for e in entries if e.item.case in ("P1-0", "P1-1")]
    cells.update([item.model_copy(update={"patient": None}) for item in items])
    changes = tuple(CaseChange(case=case, patient="X") for case in ("P1-0", "P1-1"))
    cells.cases.change(CaseRecordsWanted(changes=changes), cells.store, "key")
    mine = next(item for item in items if item.case == "P1-0")

    found = search(service.context(), Question(item=mine.id, k=80, exclude=("item", "patient")))
    allowed = search(service.context(), Question(item=mine.id, k=80, exclude=("item",)))
    named = search(
        service.context(),
        Question(vector=(1.0,) * 6, fingerprint=CARD.fingerprint, k=80, about=About(patient="X")),
    )
    counted = count_case(
        cells, Reviews(cells.versions), CountQuestion(by="case", case="P1-0", k=80)
    )

    grouped = [
        search(service.context(), Question(vector=(1.0,) * 6, fingerprint=CARD.fingerprint, k=80,
                                           group_by=by, per_group=2))
        for by in ("patient", "group")
    ]  # fmt: skip
    for one in grouped:
        (group,) = (group for group in one.groups if group.value == "X")
        assert (group.by, group.items) == ("patient", len(items))
        assert {hit.item.patient for hit in group.hits} == {"X"}
        assert not {"P1-0", "P1-1"} & {group.value for group in one.groups}
    others = search(
        service.context(), Question(vector=(1.0,) * 6, fingerprint=CARD.fingerprint, k=80,
                                    not_these=Filter(patient=("X",)))
    )  # fmt: skip
    similar = CaseQuestion(case="P3-0", k=20, not_these=Filter(patient=("X",)))
    cases = similar_cases(service.context(), similar)
    for words in (others.warnings, cases.warnings):
        assert not any("No stored item is of patient" in one for one in words)
    assert not {"P1-0", "P1-1"} & {hit.item.case for hit in others.hits}
    assert not {"P1-0", "P1-1"} & {one.value for one in cases.cases}
    assert "P1-1" in {hit.item.case for hit in allowed.hits}
    assert not {"P1-0", "P1-1"} & {hit.item.case for hit in found.hits}
    assert not {"P1-0", "P1-1"} & {hit.item.case for hit in named.hits}
    assert {found.patient_exclusion, named.patient_exclusion} == {"partial"}
    assert not any("No stored item is of patient" in one for one in named.warnings)
    assert counted.patient_exclusion == "partial"
    assert {cell.item.patient for cell in counted.cells} == {"X"}
    whole = count_case(cells, Reviews(cells.versions), CountQuestion(by="patient", case="X"))
    assert whole.items == len(whole.cells) == len(items)


def test_a_record_that_names_a_patient_makes_no_search_for_patients_go_through_everything(
    service: Service, entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight cells of two patients, one of whom only a record names; 72 of unknown ones."""
    cells = service.collection()
    cells.update(
        [
            e.item.model_copy(
                update={
                    "patient": "A" if at < 4 else None,
                    "case": "B-1" if 4 <= at < 8 else None,
                }
            )
            for at, e in enumerate(entries)
        ]
    )
    change = CaseChange(case="B-1", patient="B")
    cells.cases.change(CaseRecordsWanted(changes=(change,)), cells.store, "key")
    asked: list[int] = []
    nearest = Searcher.nearest

    def counted(self: Searcher, k: int, *conditions: Filter) -> list[Hit]:
        asked.append(k)
        return nearest(self, k, *conditions)

    monkeypatch.setattr(Searcher, "nearest", counted)
    question = Question(vector=(1.0,) * 6, fingerprint=CARD.fingerprint, k=5, group_by="patient")
    groups = search(service.context(), question).groups

    assert {(group.value, group.items) for group in groups} == {("A", 4), ("B", 4)}
    assert max(asked) <= 2 * question.k


def test_a_case_is_counted_by_the_votes_that_a_search_with_each_cell_gives(
    service: Service, entries: list[Entry]
) -> None:
    twice = next(
        one.item
        for one, before in zip(entries[1:], entries, strict=False)
        if (one.vector == before.vector).all()
        and one.item.case is not None
        and one.item.patient != before.item.patient
    )
    cells, case = service.collection(), str(twice.case)
    counted = count_case(cells, Reviews(cells.versions), CountQuestion(case=case, k=1))
    voted = {
        one.item.id: answer_with_vote(service.context(), Question(item=one.item.id, k=1))
        for one in counted.cells
    }

    assert any(one.answer.duplicates for one in voted.values())  # the same picture does not vote
    assert all(one.voted == voted[one.item.id].vote.label for one in counted.cells)


def test_a_vote_that_had_no_choice_is_no_verdict(service: Service, entries: list[Entry]) -> None:
    cells = service.collection()
    mine = next(e.item for e in entries if e.item.patient and e.item.label)
    others = [e.item for e in entries if e.item.patient != mine.patient]
    cells.update([item.model_copy(update={"label": "LY"}) for item in others])
    rest = [e.item for e in entries if e.item.patient == mine.patient]
    cells.update([item.model_copy(update={"label": "BL"}) for item in rest])
    question = Question(item=mine.id, k=5)

    alone = answer_with_vote(service.context(), question)
    counted = count_case(
        cells, Reviews(cells.versions), CountQuestion(by="patient", case=str(mine.patient))
    )
    one_more = next(item for item in others if item.patient)
    Reviews(cells.versions).add([(one_more, "MY", None)], "key", "Ada")
    after = answer_with_vote(service.context(), question)

    assert (alone.vote.label, alone.state) == ("LY", "not sure")
    assert "everything that could vote is labelled LY" in alone.reason
    assert counted.not_sure == len(counted.cells)
    assert "had no choice" not in after.reason
    recorded = question.model_copy(update={"labels": "recorded"})
    assert answer_with_vote(service.context(), recorded).reason == alone.reason


@pytest.fixture(name="beside")
def _beside(service: Service, entries: list[Entry], rng: np.random.Generator) -> Context:
    """The same items under another encoder, which knows the patient of every one."""
    other = service.create("other", replace(CARD, id="other-random"))
    named = [
        replace(
            one,
            item=one.item.model_copy(update={"patient": f"P{int(one.item.source[:8], 16)}"}),
            vector=np.asarray(rng.normal(size=CARD.dim), np.float32),
        )
        for one in entries
    ]
    other.collection.add(named)
    return other


def test_fused_ranks_find_no_patient_that_either_collection_knows_as_the_own(
    service: Service, entries: list[Entry], beside: Context
) -> None:
    for entry in entries[::5]:
        question = Question(
            item=entry.item.id, k=80, fuse_with="other", where=Filter(site=("site 1",))
        )
        who = int(entry.item.source[:8], 16)

        alone = search(service.context(), question.model_copy(update={"fuse_with": None}))
        answer = search(service.context(), question, beside=beside)

        assert {hit.item.site for hit in answer.hits} <= {"site 1"}
        assert f"P{who}" not in {hit.item.patient for hit in answer.hits}
        twins = beside.collection.store.get([hit.item.id for hit in answer.hits])
        assert f"P{who}" not in {one.item.patient for one in twins}
        assert {hit.item.id for hit in answer.hits} <= {hit.item.id for hit in alone.hits}
        assert answer.fused_with is not None
        assert answer.fused_with.collection == "other"
        scores = {hit.item.id: hit.score for hit in alone.hits}
        assert all(hit.score == pytest.approx(scores[hit.item.id]) for hit in answer.hits)


def test_a_vote_of_fused_ranks_is_of_its_hits_and_takes_no_calibration(
    service: Service, entries: list[Entry], beside: Context
) -> None:
    question = Question(item=entries[4].item.id, k=9, fuse_with="other")

    found = answer_with_vote(service.context(), question, beside=beside)

    hits = search(service.context(), question, beside=beside).hits
    assert [hit.item.id for hit in found.answer.hits] == [hit.item.id for hit in hits]
    assert found.vote.voters == sum(hit.label is not None for hit in hits)
    assert found.calibration in ("none", "other question")
    assert found.probability is None


def test_items_that_only_the_other_collection_has_are_told(
    service: Service, entries: list[Entry], beside: Context
) -> None:
    gone = [one.item.id for one in entries[10:30]]
    service.collection().remove(gone)
    question = Question(item=entries[0].item.id, k=20, fuse_with="other", exclude=("item",))

    answer = search(service.context(), question, beside=beside)

    assert not {hit.item.id for hit in answer.hits} & set(gone)
    assert answer.fused_with is not None
    assert answer.fused_with.missing == len(gone)
    assert any("are both of the same cells?" in one for one in answer.warnings)


def test_ranks_that_cannot_be_fused_are_refused_with_the_reason(
    service: Service, entries: list[Entry], beside: Context
) -> None:
    question = Question(item=entries[0].item.id, fuse_with="other")
    vector = {"item": None, "vector": (1.0,) * 6, "fingerprint": CARD.fingerprint}
    refused: list[tuple[dict[str, Any], Context | None, str]] = [
        (vector, beside, "a vector is of one encoder"),
        ({"group_by": "patient"}, beside, "got group_by and fuse_with"),
        ({"fuse_with": "cells"}, service.context(), "is searched anyway"),
        ({}, None, "search, refine and vote alone"),
    ]

    for changes, other, message in refused:
        with pytest.raises(BadQuestion, match=message):
            search(service.context(), question.model_copy(update=changes), beside=other)
