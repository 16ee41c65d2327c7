"""Calibration: fitted with own patients left out, kept, and noticed when it is stale."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from random_library import CARD, LABELS, random_entries, random_service, thumbnail

from search.errors import NoCalibration
from search.library.reviews import Reviews
from search.library.shards import Entry
from search.query.answer import answer as search
from search.query.answer import answer_with_vote
from search.schemas.calibration import Calibration, CalibrationPlan
from search.schemas.cases import CaseChange, CaseRecordsWanted
from search.schemas.filters import Filter
from search.schemas.items import Item, item_id
from search.schemas.questions import Question
from search.service import Service
from search.votes.calibration import CannotCalibrate
from search.votes.knn import vote

PLAN = CalibrationPlan(ks=(5, 10), sample=200)


@pytest.fixture(name="entries")
def _entries(rng: np.random.Generator) -> list[Entry]:
    return random_entries(rng, 160, patients=12)


@pytest.fixture(name="service")
def _service(tmp_path: Path, entries: list[Entry]) -> Iterator[Service]:
    service = random_service(tmp_path, entries)
    yield service
    service.close()


def test_it_is_the_vote_that_is_served_with_the_own_patient_left_out(
    service: Service, entries: list[Entry]
) -> None:
    fitted = service.context().calibrate(PLAN)
    labelled = [e.item for e in entries if e.item.label is not None]
    right = 0
    for item in labelled:
        question = Question(item=item.id, k=10)  # near-duplicates left out as well
        right += vote(search(service.context(), question).hits).label == item.label

    fit = fitted.fit(10)
    assert fit is not None
    assert fit.votes == fitted.sampled == fitted.labelled == len(labelled)
    assert fit.accuracy == pytest.approx(right / len(labelled))
    assert fitted.unit == "mixed"
    assert fitted.without_patient == sum(item.patient is None for item in labelled)


def test_it_reports_consistent_curves(service: Service) -> None:
    for fit in service.context().calibrate(PLAN).fits:
        assert sum(bin.count for bin in fit.reliability) == fit.votes
        assert 0 <= fit.ece <= 1
        assert fit.log_loss[fit.curve.method] == min(fit.log_loss.values())
        for curve in (fit.by_margin, fit.by_probability, fit.by_distance):
            assert curve[0].coverage == 1
            assert curve[0].accuracy == pytest.approx(fit.accuracy)
        assert 0 < fit.far < 2


def test_it_is_the_same_every_time_and_survives_a_restart(
    service: Service, entries: list[Entry]
) -> None:
    first, second = service.context().calibrate(PLAN), service.context().calibrate(PLAN)
    kept = service.collection().folder / "calibration.json"

    assert first == second == Calibration.model_validate_json(kept.read_text())
    assert first.fingerprint == CARD.fingerprint
    assert service.context().fitted() == (first, False)


def test_a_vote_says_its_probability(service: Service, entries: list[Entry]) -> None:
    before = answer_with_vote(service.context(), Question(item=entries[0].item.id, k=10))
    fitted = service.context().calibrate(PLAN)
    after = answer_with_vote(service.context(), Question(item=entries[0].item.id, k=10))

    assert (before.calibration, before.probability) == ("none", None)
    assert after.calibration == "applied"
    fit = fitted.fit(10)
    assert fit is not None
    assert after.probability == pytest.approx(fit.curve.at(list(after.vote.shares.values())))
    assert after.sure == (after.state == "sure")


@pytest.mark.parametrize(
    "changed",
    [
        {"k": 7},
        {"where": Filter(label=("MY", "SNE"))},
        {"exclude": ("item",)},
        {"mmr": 0.5},
    ],
)
def test_a_question_it_was_not_fitted_for_gets_no_probability(
    service: Service, entries: list[Entry], changed: dict[str, object]
) -> None:
    service.context().calibrate(PLAN)
    question = Question(item=entries[0].item.id, k=10).model_copy(update=changed)

    found = answer_with_vote(service.context(), question)

    assert (found.calibration, found.probability) == ("other question", None)
    other = answer_with_vote(
        service.context(), Question(item=entries[0].item.id, k=10), weighting="uniform"
    )
    assert other.calibration == "other question"


def test_a_write_makes_it_stale_until_it_is_fitted_again(
    service: Service, entries: list[Entry], rng: np.random.Generator
) -> None:
    service.context().calibrate(PLAN)
    extra = Item(id=item_id("more", "f" * 32), dataset="more", source="f" * 32, label="LY")
    cells = service.collection()
    cells.add([Entry(extra, np.ones(CARD.dim, np.float32), thumbnail(rng))])

    found = answer_with_vote(service.context(), Question(item=entries[0].item.id, k=10))
    assert (found.calibration, found.probability) == ("stale", None)
    assert service.context().fitted()[1]
    service.context().calibrate(PLAN)
    assert (
        answer_with_vote(service.context(), Question(item=entries[0].item.id, k=10)).calibration
        == "applied"
    )


def test_relabelling_alone_makes_it_stale(service: Service, entries: list[Entry]) -> None:
    service.context().calibrate(PLAN)
    changed = entries[1].item.model_copy(update={"label": "seen again"})
    service.collection().update([changed])

    assert service.context().fitted()[1]


def test_a_query_far_from_everything_is_out_of_distribution(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    lean = np.zeros(CARD.dim)
    lean[0] = 6
    entries = [
        Entry(e.item, np.asarray(e.vector + lean, np.float32), e.thumbnail)
        for e in random_entries(rng, 160, patients=12)
    ]
    service = random_service(tmp_path, entries)
    try:
        service.context().calibrate(PLAN)
        far = Question(vector=tuple((-lean).tolist()), fingerprint=CARD.fingerprint, k=10)

        found = answer_with_vote(service.context(), far)

        assert found.state == "out of distribution"
        assert not found.sure
        assert found.reason.startswith("Out of distribution")
    finally:
        service.close()


def test_too_little_is_refused_in_words(tmp_path: Path, rng: np.random.Generator) -> None:
    service = random_service(tmp_path, random_entries(rng, 20))
    try:
        with pytest.raises(CannotCalibrate, match="at least 50 labelled items"):
            service.context().calibrate(PLAN)
        with pytest.raises(NoCalibration, match="has no calibration"):
            service.context().fitted()
    finally:
        service.close()


def test_a_damaged_file_is_reported(service: Service) -> None:
    service.context().calibrate(PLAN)
    path = service.collection().folder / "calibration.json"
    path.write_text(json.dumps({"format": 1}))

    with pytest.raises(CannotCalibrate, match="damaged"):
        service.context().fitted()


def test_it_is_held_out_by_patient_so_that_noise_is_not_called_certain(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    entries = [
        Entry(
            e.item.model_copy(update={"label": LABELS[at % 4]}),
            np.asarray(rng.normal(size=CARD.dim), np.float32),
            e.thumbnail,
        )
        for at, e in enumerate(random_entries(rng, 200, patients=20))
    ]
    service = random_service(tmp_path, entries)
    try:
        fit = service.context().calibrate(PLAN).fit(10)
        assert fit is not None
        assert fit.accuracy < 0.45
        assert fit.ece < fit.ece_before
        assert max(bin.probability for bin in fit.reliability) < 0.7
    finally:
        service.close()


def test_the_patient_is_left_out_whom_only_the_records_of_cases_name(
    service: Service, entries: list[Entry]
) -> None:
    cells = service.collection()
    plain = service.context().calibrate(PLAN)
    named = {e.item.case: str(e.item.patient) for e in entries if e.item.case is not None}
    cells.update(
        [e.item.model_copy(update={"patient": None}) for e in entries if e.item.case is not None]
    )
    bare = service.context().calibrate(PLAN)
    changes = tuple(CaseChange(case=case, patient=who) for case, who in named.items())
    cells.cases.change(CaseRecordsWanted(changes=changes), cells.store, "key")

    recorded = service.context().calibrate(PLAN)

    assert bare.without_patient > plain.without_patient == recorded.without_patient
    assert recorded.fits == plain.fits != bare.fits


def test_reviews_make_it_stale_for_votes_by_them_and_not_for_recorded_labels(
    service: Service, entries: list[Entry]
) -> None:
    service.context().calibrate(PLAN)
    question = Question(item=entries[0].item.id, k=10)
    plain = question.model_copy(update={"labels": "recorded"})
    before = answer_with_vote(service.context(), plain)
    Reviews(service.collection().versions).add([(entries[1].item, "BL", None)], "key", "Ada")

    assert answer_with_vote(service.context(), question).calibration == "stale"
    after = answer_with_vote(service.context(), plain)
    assert (after.probability, after.state, after.vote) == (
        before.probability,
        before.state,
        before.vote,
    )
    fitted = service.context().calibrate(PLAN)
    assert fitted.reviews is not None
    assert answer_with_vote(service.context(), question).calibration == "applied"
    assert answer_with_vote(service.context(), plain).calibration == "other question"
