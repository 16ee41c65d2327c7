"""Two groups of cases, against what was put into them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from treated import treated_service

from search.errors import BadQuestion
from search.evaluation.case_groups import compare_groups
from search.schemas.cases import CaseFilter, GroupsQuestion
from search.schemas.filters import Filter
from search.service import Service


@pytest.fixture(name="service", scope="module")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = treated_service(tmp_path_factory.mktemp("groups"))
    yield service
    service.close()


def test_two_groups_differ_where_they_were_made_to(service: Service) -> None:
    question = GroupsQuestion(
        first=CaseFilter(treatment=("none",)),
        second=CaseFilter(treatment=("treated",)),
        prototypes=2,
        resamples=300,
    )

    found = compare_groups(service.context(), question)

    blast = next(row for row in found.rows if row.name == "blast")
    assert (blast.first, blast.second) == pytest.approx((0.6, 1 / 3))
    assert blast.low <= blast.difference + 1e-9
    assert blast.high < 0
    assert blast.clear
    assert (found.first_cases, found.second_patients, found.both) == (18, 6, 0)
    kinds = {row.name.partition(" ")[2] for row in found.rows if row.kind == "prototype"}
    assert kinds == {"(mostly blast)", "(mostly normal)"}
    assert not found.in_sample  # no label chose the axes


def test_groups_of_the_same_patients_at_two_times_are_paired(service: Service) -> None:
    names = [f"P{who:02d}" for who in range(6, 12)]
    question = GroupsQuestion(
        first_cases=tuple(f"{one}-c" for one in names),
        second_cases=tuple(f"{one}-a" for one in names),
        resamples=200,
    )

    found = compare_groups(service.context(), question)

    assert found.both == 6
    assert not any(row.clear for row in found.rows if row.kind == "label")


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({}, "which cases are in the first group"),
        ({"first_cases": ("P00-a", "P01-a"), "second_cases": ("gone",)}, "'gone' has no items"),
        ({"first_cases": ("P00-a",), "second_cases": ("P01-a", "P02-a")}, "it needs two"),
        ({"first_cases": ("P00-a", "P01-a"), "second_cases": ("P01-a", "P02-a")}, "in both groups"),
        (
            {"first": {"treatment": ("other",)}, "second_cases": ("P01-a", "P02-a")},
            "no record meets",
        ),
    ],
)
def test_groups_that_cannot_be_compared_are_refused_in_a_sentence(
    service: Service, question: dict[str, object], words: str
) -> None:
    with pytest.raises(BadQuestion, match=words):
        compare_groups(service.context(), GroupsQuestion.model_validate(question))


def test_a_case_without_labels_counts_in_no_row_by_label(service: Service) -> None:
    cells = service.collection("cells")
    of_case = [one.item for one in cells.store.scroll(Filter(case=("P06-a",)), 10).items]
    cells.update([item.model_copy(update={"label": None}) for item in of_case])
    question = GroupsQuestion(
        first=CaseFilter(treatment=("none",)), second=CaseFilter(treatment=("treated",)),
        prototypes=2, resamples=100,
    )  # fmt: skip

    found = compare_groups(service.context(), question)

    blast = next(row for row in found.rows if row.name == "blast")
    assert blast.first == pytest.approx(0.6)  # not less by a case that says nothing
    assert found.first_cases == 18
    assert "1 case without a labelled cell" in found.warnings[-1]
