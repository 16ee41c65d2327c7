"""One rule for who a patient is: what records say counts as what items say, in every question."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_library import CARD, random_entries, random_service

from search.cases.count import count_case
from search.cases.similar import case_facts, similar_cases
from search.errors import NoSuchCase
from search.index.contract import scroll_all
from search.index.recorded import RecordedStore
from search.library.case_records import BadCase
from search.library.reviews import Reviews
from search.query.answer import answer as search
from search.schemas.cases import CaseChange, CaseQuestion, CaseRecordsWanted, CountQuestion
from search.schemas.filters import Filter
from search.schemas.items import Item, with_patient
from search.schemas.questions import Question
from search.service import Service

ASKED = Question(vector=(1.0,) * 6, fingerprint=CARD.fingerprint, k=9)


@pytest.fixture(name="services", scope="module")
def _services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Service]]:
    """One library whose items name their patients, and one where records do for every other."""
    folder = tmp_path_factory.mktemp("recorded")
    named = [one for one in random_entries(np.random.default_rng(3), 160, 6) if one.item.case]
    bare = [
        replace(one, item=one.item.model_copy(update={"patient": None})) if at % 2 else one
        for at, one in enumerate(named)
    ]
    made = tuple(random_service(folder / name, some) for name, some in (("a", named), ("b", bare)))
    whose = {one.item.case: one.item.patient for one in named}
    record(made[1], {str(case): str(patient) for case, patient in whose.items()})
    yield made
    for one in made:
        one.close()


def record(service: Service, patients: dict[str, str]) -> None:
    changes = tuple(CaseChange(case=case, patient=who) for case, who in patients.items())
    cells = service.collection()
    cells.cases.change(CaseRecordsWanted(changes=changes), cells.store, "key")


def known(service: Service, item: Item) -> Item:
    """With the patient that a record names."""
    return with_patient(item, service.context().patients())


@pytest.mark.parametrize(
    "where",
    [Filter(patient=("P1",)), Filter(patient=("P1", "P4"), label=("MY", "LY")), Filter()],
    ids=["one", "two", "none"],
)
def test_a_filter_by_patient_finds_those_whom_records_name(
    services: tuple[Service, Service], where: Filter
) -> None:
    def asked(service: Service) -> Any:
        store, context = service.collection().store, service.context()
        found = [
            search(context, ASKED.model_copy(update={"where": where, **more}))
            for more in (
                {"facets": ("patient", "case")},
                {"not_these": Filter(patient=("P4", "P2")), "facets": ("patient",)},
                {"group_by": "patient", "per_group": 3},
                {"group_by": "group", "per_group": 3},
                {"balance": "patient"},
            )
        ]
        return (
            store.count(where),
            context.count(where),
            [known(service, one.item) for one in scroll_all(store, where)],
            [store.facet(name, where) for name in ("patient", "case", "label")],
            list(store.facet("patient", where, 2)),
            [[known(service, hit.item) for hit in one.hits] for one in found],
            [[(g.value, g.items) for g in one.groups] for one in found],
            [one.facets for one in found],
            [(one.searched, one.warnings) for one in found],
        )

    first, second = map(asked, services)

    assert first == second
    assert first[0] > 10


def test_similar_patients_are_those_whom_records_name_too(
    services: tuple[Service, Service],
) -> None:
    def asked(service: Service, **more: object) -> Any:
        question = CaseQuestion.model_validate({"case": "P2", "by": "patient", "k": 4} | more)
        found = similar_cases(service.context(), question)
        best = [(o.value, round(o.distance, 6), o.cells, o.patients) for o in found.cases]
        return best, found.cells, found.compared, found.patient_exclusion, found.warnings

    for more in (
        {},
        {"where": Filter(label=("MY", "LY"))},
        {"not_these": Filter(patient=("P1",))},
        {"candidates": 4},  # chosen by votes
    ):
        first, second = (asked(service, **more) for service in services)
        assert first == second
        assert len(first[0]) > 2


def test_the_facts_and_the_count_of_a_patient_are_those_of_records_too(
    services: tuple[Service, Service],
) -> None:
    for service in services:
        cells = service.collection()
        facts = case_facts(cells, "patient", "P3")
        counted = count_case(cells, Reviews(cells.versions), CountQuestion(by="patient", case="P3"))

        assert (
            facts.items
            == counted.items
            == services[0].collection().store.count(Filter(patient=("P3",)))
        )
        assert (facts.cases, facts.patients) == (("P3-0", "P3-1"), ("P3",))


def test_a_filter_follows_a_record_at_once(tmp_path: Path) -> None:
    entries = [one for one in random_entries(np.random.default_rng(3), 40, 2) if one.item.case]
    bare = [replace(one, item=one.item.model_copy(update={"patient": None})) for one in entries]
    cells = sum(one.item.case == "P1-0" for one in bare)
    with closing(random_service(tmp_path, bare)) as service:
        counted = []
        for who in ("A", "B"):
            record(service, {"P1-0": who})
            counted.append([service.context().count(Filter(patient=(one,))) for one in "AB"])
            assert service.collection().store.facet("patient") == {who: cells}

        with pytest.raises(NoSuchCase):
            case_facts(service.collection(), "patient", "A")
        service.collection().update([entries[0].item])
        with pytest.raises(BadCase, match="its items are of 'P"):
            record(service, {str(entries[0].item.case): "B"})

    assert counted == [[cells, 0], [0, cells]]


def test_values_are_counted_while_a_record_goes(services: tuple[Service, Service]) -> None:
    class Going:
        def patients(self) -> dict[str, str]:
            return {"another case": "P1"}

        def cases_of(self, patients: Sequence[str]) -> Collection[str]:
            return services[1].collection().cases.cases_of(patients)

    items, where = services[1].collection().store.items, Filter(patient=("P1",))
    assert items.facet("patient", where)["P1"] < services[1].collection().store.count(where)
    assert RecordedStore(items, Going()).facet("patient", where) == items.facet("patient", where)
