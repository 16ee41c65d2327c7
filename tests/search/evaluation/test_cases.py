"""Evaluation of similar cases: planted labels are found, own patients never, chance is told."""

from __future__ import annotations

import numpy as np
import pytest
from random_library import CARD, random_service, thumbnail

from search.client.evaluations import wait_for
from search.evaluation.cases import CannotEvaluateCases, evaluate_cases
from search.library.shards import Entry
from search.schemas.cases import CaseChange, CasePlan, CaseRecordsWanted
from search.schemas.evaluations import EvaluationPlan
from search.schemas.items import Item, item_id
from search.service import Service

PLAN = CasePlan(distances=("mean", "max_sim"), k=3)


@pytest.fixture(name="service", scope="module")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Service:  # type: ignore[misc]
    """Twelve patients with two cases each; of four diagnoses, told by a third of the cells."""
    rng = np.random.default_rng(7)
    usual, special = rng.normal(size=CARD.dim), rng.normal(size=(4, CARD.dim)) * 2
    entries, changes = [], []
    for patient in range(12):
        for which in range(2):
            case = f"{patient}-{which}"
            changes.append(CaseChange(case=case, diagnosis=f"D{patient % 4}"))
            for at in range(9):
                centre = special[patient % 4] if at % 3 == 0 else usual
                vector = centre + rng.normal(size=CARD.dim) * 0.4
                source = f"{patient:016x}{which:016x}"
                item = Item(
                    id=item_id(case, source + str(at)),
                    dataset="made",
                    source=source,
                    case=case,
                    patient=f"P{patient}",
                )
                entries.append(Entry(item, vector.astype(np.float32), thumbnail(rng)))
    service = random_service(tmp_path_factory.mktemp("cases"), entries)
    cells = service.collection()
    cells.cases.change(CaseRecordsWanted(changes=tuple(changes)), cells.store, "test")
    yield service
    service.close()


def test_planted_diagnoses_are_found_above_chance_and_with_intervals(service: Service) -> None:
    found = evaluate_cases(service.context(), PLAN, resamples=200)

    assert (found.cases, found.patients, found.k) == (24, 12, 3)
    best = found.scores[1]
    assert best.distance == "max_sim"
    assert best.intervals["top_1"].low > found.chance["top_1"]
    assert found.chance["top_1"] == pytest.approx(4 / 22)
    assert found.chance["top_3"] == pytest.approx(1 - 18 * 17 * 16 / (22 * 21 * 20))
    assert best.over_mean is not None
    assert best.over_mean["map"].difference == pytest.approx(best.map - found.scores[0].map)
    assert {one.label: one.cases for one in best.labels} == {f"D{at}": 6 for at in range(4)}


def test_an_evaluation_of_cases_is_kept_as_any_other(service: Service) -> None:
    plan = EvaluationPlan(cases=PLAN, resamples=50)
    started = service.evaluations.start(service.context(), plan)

    record = wait_for(service.evaluations.get, started.id)

    assert record.state == "done", record.error
    assert record.result is None
    assert record.cases is not None
    assert record.cases.scores[0].intervals["vote"].high <= 1


def test_too_few_labelled_cases_are_told(service: Service) -> None:
    cells = service.collection()
    change = CaseRecordsWanted(changes=(CaseChange(case="0-0", treatment="ATRA"),))
    cells.cases.change(change, cells.store, "test")

    with pytest.raises(CannotEvaluateCases, match="at least 4 cases with a value of 'treatment'"):
        evaluate_cases(service.context(), CasePlan(column="treatment"))
