"""When not to trust an answer: figures on vectors whose truth is known."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from fastapi.testclient import TestClient
from random_library import random_entries, random_service
from sklearn.metrics import roc_auc_score

from search.api.app import create_app
from search.evaluation.labelled import Cells, table
from search.evaluation.trust import Trust, auroc, kth_distances, trust_of, trust_of_collection
from search.schemas.evaluations import TrustWanted
from search.schemas.filters import Filter
from search.schemas.items import Item, item_id

DIM = 12


def cells_of(rng, labels, *, sites=None, days=None, patients=None, spread=0.25) -> Cells:
    """Vectors around a direction of each label, two items a patient."""
    rows = []
    for at, label in enumerate(labels):
        vector = np.eye(DIM)[label] + spread * rng.standard_normal(DIM) / 2
        item = Item(
            id=item_id("d", f"{at:032x}"), dataset="d", source=f"{at:032x}", label=f"label {label}",
            patient=f"P{at // 2}" if patients is None else patients[at],
            site=None if sites is None else sites[at],
            acquired=None if days is None else days[at],
        )  # fmt: skip
        rows.append((item, (vector / np.linalg.norm(vector)).astype(np.float32)))
    return table(rows, DIM)


def test_the_auroc_is_that_of_scikit_learn(rng):
    known, strange = rng.standard_normal(50).round(1), 1 + rng.standard_normal(30).round(1)
    truth = np.repeat([0, 1], [50, 30])

    assert auroc(known, strange) == pytest.approx(
        roc_auc_score(truth, np.concatenate([known, strange]))
    )


def test_the_distance_leaves_the_own_patient_out(rng):
    cells = cells_of(rng, [0] * 4 + [1] * 4, patients=["A"] * 4 + ["B"] * 4, spread=0)
    rows = np.arange(8)

    assert kth_distances(cells, rows, rows, k=1)[0] == pytest.approx(1, abs=1e-6)


@pytest.fixture(name="found", scope="module")
def _found() -> Trust:
    """Three labels far apart; sites that do not differ; label 3 is of another kind altogether."""
    rng = np.random.default_rng(5)
    labels = [0, 1, 2] * 80
    cells = cells_of(rng, labels, sites=[("bergen", "lima")[at // 6 % 2] for at in range(240)])
    return trust_of(cells, cells_of(rng, [5] * 60), most=120)


def test_an_unseen_label_and_tissue_are_told_and_a_site_that_is_alike_is_not(found: Trust):
    by = {(one.kind, one.value): one for one in found.strange}

    for name in ("label 0", "label 1", "label 2"):
        assert by["unseen label", name].auroc > 0.97
        assert by["unseen label", name].interval[0] > 0.95
    assert by["outside", "outside"].auroc > 0.97
    assert abs(by["unseen site", "lima"].auroc - 0.5) < 0.15
    assert found.notes == ("decay by year: no item has a day of acquisition",)


def test_a_threshold_keeps_what_it_promises_on_queries_that_did_not_choose_it(found: Trust):
    one = found.strange[0]

    for limit in one.thresholds:
        assert limit.specificity > limit.passes - 0.1
        assert limit.sensitivity > 0.9
        low, high = limit.specificity_interval
        assert low <= limit.specificity <= high
    assert one.thresholds[0].distance < one.thresholds[1].distance


def test_a_score_that_falls_with_the_years_is_found_and_a_steady_one_is_not():
    rng = np.random.default_rng(2)
    labels, days = [0, 1] * 120, [date(2018 + at // 48, 5, 1) for at in range(240)]
    steady = cells_of(rng, labels, days=days)
    vectors = steady.vectors.copy()
    order = np.argsort(steady.days, kind="stable")
    for row in order[48:]:  # from 2019 on ever more noise
        noise = rng.standard_normal(DIM) * 0.25 * ((steady.days[row] - steady.days.min()) / 365)
        vectors[row] += noise
        vectors[row] /= np.linalg.norm(vectors[row])
    from dataclasses import replace

    flat = trust_of(steady).decay
    falling = trust_of(replace(steady, vectors=vectors)).decay

    assert flat is not None
    assert falling is not None
    assert [one.year for one in falling.years] == [2019, 2020, 2021, 2022]
    assert falling.cutoff == "2018-12-31"
    assert falling.per_year is not None
    assert falling.interval is not None
    assert falling.per_year < -0.02
    assert falling.interval[1] < 0
    assert flat.per_year == pytest.approx(0, abs=0.01)


def test_what_cannot_be_measured_is_said():
    found = trust_of(cells_of(np.random.default_rng(0), [0] * 10))

    assert found.strange == ()
    assert found.notes[:2] == (
        "unseen label: fewer than two there",
        "unseen site: fewer than two there",
    )


def test_a_picture_stored_twice_counts_as_one_group_whoever_it_is_said_to_be_of(tmp_path, rng):
    """A copy re-saved under another source lies beside its original, of no known patient."""
    first = [one for one in random_entries(rng, 120) if one.item.label and one.item.patient]
    copies = []
    for at, one in enumerate(first):
        source = f"{at:032x}"
        item = one.item.model_copy(
            update={"id": item_id("copy", source), "source": source, "case": None}
        )
        vector = one.vector / np.linalg.norm(one.vector) + 0.02 * rng.standard_normal(6)
        copies.append(replace(one, item=item, vector=vector.astype(np.float32)))
    bare = [replace(one, item=one.item.model_copy(update={"patient": None})) for one in copies]
    wanted = TrustWanted(most=40, outside=Filter(label=("LY",)))

    found = []
    for name, more in (("said", copies), ("seen", bare)):
        with closing(random_service(tmp_path / name, first + more)) as service:
            found.append(trust_of_collection(service.collection(), wanted))

    assert found[0].strange == found[1].strange
    assert {one.kind for one in found[0].strange} >= {"unseen label", "outside"}


def test_the_service_measures_it_as_a_job(tmp_path, rng):
    service = random_service(tmp_path, random_entries(rng, 60))
    app = create_app(service)
    with TestClient(app, base_url="http://localhost") as client:
        body = {"most": 20, "outside": {"label": ["no such label"]}}
        job = client.post("/v1/collections/cells/trust", json=body).json()
        while job["ended"] is None:
            job = client.get(f"/v1/jobs/{job['id']}").json()
    service.close()

    assert job["state"] == "done", job
    assert any("decay by year" in note for note in job["result"]["notes"])
    assert "outside: fewer than 20 labelled items on a side" in job["result"]["notes"]
