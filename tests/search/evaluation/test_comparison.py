"""Two evaluations compared over the same items."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from random_library import random_entries, random_service

from search.client.evaluations import wait_for
from search.errors import BadQuestion
from search.evaluation.comparison import compared, mcnemar, paired
from search.schemas.evaluations import EvaluationPlan, PairedSide
from search.schemas.filters import Filter
from search.service import Service

PLAN = EvaluationPlan(ks=(1, 5), resamples=20, probe=False, ann=False)


@pytest.fixture(name="service")
def _service(tmp_path: Path, rng: np.random.Generator) -> Iterator[Service]:
    service = random_service(tmp_path, random_entries(rng, 120, 12))
    yield service
    service.close()


def done(service: Service, plan: EvaluationPlan) -> str:
    id = service.evaluations.start(service.context(), plan).id
    assert wait_for(service.evaluations.get, id, every_s=0.01).state == "done"
    return id


def side(encoder: str) -> PairedSide:
    return PairedSide(
        id=encoder * 8,
        collection="cells",
        version="1",
        encoder=encoder,
        fingerprint="f" * 16,
        method="5-NN",
        alone=0,
    )


def table(truth: list[str], one: list[str | None], other: list[str | None]) -> pa.Table:
    return pa.table(
        {
            "truth": truth,
            "said": pa.array(one, pa.string()),
            "said of the second": pa.array(other, pa.string()),
            "cluster": list(range(len(truth))),
        }
    )


def test_two_ways_to_answer_are_compared_over_the_same_items_and_patients(
    service: Service,
) -> None:
    first, second = done(service, PLAN), done(service, PLAN.model_copy(update={"ks": (5, 20)}))
    record = service.evaluations.get(first)
    found = paired(service.evaluations, first, second, "1-NN", "20-NN")
    turned = paired(service.evaluations, second, first, "20-NN", "1-NN")

    assert record.result is not None
    assert found.asked == record.result.data.asked
    assert found.clusters == record.result.clusters < found.asked
    assert found.mcnemar is None  # several items of one patient are no fair coins
    counted = found.both_right + found.only_first + found.only_second + found.neither
    assert counted == found.asked
    (method,) = [one for one in record.result.methods if one.method == "1-NN"]
    f1 = found.scores[0]
    assert (f1.name, f1.first) == ("weighted_f1", pytest.approx(method.scores.weighted_f1))
    assert f1.difference == pytest.approx(f1.first - f1.second)
    assert f1.span.low <= f1.difference <= f1.span.high
    for one, other in zip(found.scores, turned.scores, strict=True):
        assert other.difference == pytest.approx(-one.difference)
        assert other.span.low == pytest.approx(-one.span.high)
    recalls = {one.label: one.recall for one in method.classes}
    assert {one.name: one.first for one in found.classes} == pytest.approx(recalls)


def test_equal_answers_differ_in_nothing_and_say_so(service: Service) -> None:
    first, second = done(service, PLAN), done(service, PLAN)
    found = paired(service.evaluations, first, second, "5-NN")

    assert (found.only_first, found.only_second, found.verdict) == (0, 0, "not shown")
    assert all((one.difference, one.span.low, one.span.high) == (0, 0, 0) for one in found.scores)
    assert found.words.startswith("No difference is shown")


def test_a_difference_that_the_items_share_is_found_and_named() -> None:
    truth = ["a", "b"] * 40
    wrong = {at for at in range(80) if at % 5 == 0}
    other = [
        ("b" if label == "a" else "a") if at in wrong else label for at, label in enumerate(truth)
    ]
    unanswered: list[str | None] = list(other)
    unanswered[1] = None
    found = compared(table(truth, list(truth), unanswered), "source", side("x"), side("y"), 0)

    assert (found.verdict, found.only_first, found.only_second) == ("first", 17, 0)
    assert found.words.startswith("x agrees with the labels more often")
    assert found.scores[0].span.low > 0
    assert found.mcnemar == pytest.approx(2 / 2**17)
    assert not found.notes


@pytest.mark.parametrize(
    ("one", "other", "p"), [(0, 0, 1.0), (3, 3, 1.0), (0, 5, 0.0625), (1, 9, 22 / 1024)]
)
def test_mcnemar_is_a_fair_coin_for_each_item_that_one_alone_has_right(
    one: int, other: int, p: float
) -> None:
    assert mcnemar(one, other) == mcnemar(other, one) == pytest.approx(p)


def test_items_that_only_one_tested_are_left_out_and_counted(service: Service) -> None:
    whole = done(service, PLAN)
    some = done(service, PLAN.model_copy(update={"where": Filter(label=("BL", "MY"))}))
    found = paired(service.evaluations, whole, some, "5-NN")

    assert found.second.alone == 0
    assert found.first.alone > 0
    assert found.asked + found.first.alone == service.evaluations.get(whole).result.data.asked  # type: ignore[union-attr]
    assert "tested by the first alone" in found.notes[0]


def test_what_cannot_be_paired_is_refused_in_words(service: Service) -> None:
    first = done(service, PLAN)
    few = done(service, PLAN.model_copy(update={"ask": 5}))

    with pytest.raises(BadQuestion, match="does not differ from itself"):
        paired(service.evaluations, first, first, "5-NN")
    with pytest.raises(BadQuestion, match="at least 20 items that both tested, got"):
        paired(service.evaluations, first, few, "5-NN")
    with pytest.raises(BadQuestion, match="no method '7-NN'"):
        paired(service.evaluations, first, few, "7-NN")
    with pytest.raises(LookupError, match="no evaluation 'nothing'"):
        paired(service.evaluations, first, "nothing", "5-NN")
