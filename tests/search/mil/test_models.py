"""Case models over HTTP: trained, listed, applied to cases that they did not see, and refused."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from fastapi.testclient import TestClient
from random_library import CARD, random_service, thumbnail

from search.api.access import Access
from search.api.app import create_app
from search.api.routes.mil import _aged
from search.cases.distances import Floats
from search.cases.similar import similar_cases
from search.errors import BadQuestion
from search.index.contract import Vectors
from search.library.library import Library
from search.library.shards import Entry
from search.maintenance.snapshots import restore, snapshot
from search.mil.models import CARD as MODEL
from search.mil.models import WEIGHTS, Models, NoSuchModel
from search.mil.predict import predict
from search.schemas.cases import CaseChange, CaseQuestion, CaseRecordsWanted
from search.schemas.items import Item, item_id
from search.schemas.mil import MilModel, MilPlan, MilQuestion
from search.service import Service
from train.mil import routes
from train.mil.run import train

CASES = 30
PLAN = {"epochs": 25, "folds": 3, "lr": 0.01, "name": "marrow", "accuracy": 0.8}


def _entries() -> list[Entry]:
    """Cases of eight cells; every second case has two that point another way."""
    rng = np.random.default_rng(3)
    picture = thumbnail(rng)
    made = []
    for case in range(CASES):
        for cell in range(8):
            vector = np.array([1, 0, 0, 0, 0, 0]) + 0.3 * rng.normal(size=6)
            if case % 2 and cell < 2:
                vector = np.array([0, 0, 3, 0, 0, 0]) + 0.2 * rng.normal(size=6)
            item = Item(
                id=item_id("made", f"{case:016x}{cell:016x}"),
                dataset="made",
                source=f"{case:016x}{cell:016x}",
                label="blast" if case % 2 and cell < 2 else "normal",
                case=f"C{case:02d}",
                patient=f"P{case:02d}",
            )
            made.append(Entry(item, np.asarray(vector, np.float32), picture))
    return made


@pytest.fixture(name="service", scope="module")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = random_service(tmp_path_factory.mktemp("models"), _entries())
    cells = service.collection("cells")
    changes = tuple(
        CaseChange(case=f"C{at:02d}", diagnosis="AML" if at % 2 else "healthy")
        for at in range(CASES)
    )
    cells.cases.change(CaseRecordsWanted(changes=changes), cells.store, "test")
    yield service
    service.close()


@pytest.fixture(name="client", scope="module")
def _client(service: Service) -> Iterator[TestClient]:
    app = create_app(service, routers=[routes.router], problems=routes.PROBLEMS)
    with TestClient(app, base_url="http://localhost") as client:
        yield client


def trained(client: TestClient, **plan: Any) -> dict[str, Any]:
    """The job of a training, once it has ended."""
    response = client.post("/v1/collections/cells/mil/models", json=PLAN | plan)
    assert response.status_code == 202, response.text
    path = response.headers["Location"]
    while (job := client.get(path).json())["state"] in ("queued", "running"):
        time.sleep(0.02)
    return dict(job)


@pytest.fixture(name="model", scope="module")
def _model(client: TestClient) -> dict[str, Any]:
    job = trained(client)
    assert job["state"] == "done", job
    return dict(job["result"])


def ask(client: TestClient, model: dict[str, Any], **question: Any) -> dict[str, Any]:
    response = client.post(
        "/v1/collections/cells/mil/predict", json={"model": model["id"], **question}
    )
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_a_model_is_kept_with_its_scores_and_what_it_saw(
    client: TestClient, service: Service, model: dict[str, Any]
) -> None:
    listed = client.get("/v1/collections/cells/mil/models").json()

    assert [one["id"] for one in listed] == [model["id"]]
    assert (model["cases"], model["patients"], model["cells"]) == (CASES, CASES, 8 * CASES)
    assert model["classes"] == ["AML", "healthy"]
    assert model["fingerprint"] == CARD.fingerprint
    assert model["scores"]["figures"]["auroc"] > 0.9
    low = model["scores"]["intervals"]["auroc"]["low"]
    assert low <= model["scores"]["figures"]["auroc"]
    assert sum(map(sum, model["scores"]["confusion"])) == CASES
    assert not listed[0]["stale"]
    cells, change = service.collection("cells"), CaseChange(case="C00", treatment="none")
    cells.cases.change(CaseRecordsWanted(changes=(change,)), cells.store, "test")
    assert client.get("/v1/collections/cells/mil/models").json()[0]["stale"]
    access = cast(Access, SimpleNamespace(context=lambda name: service.context()))
    for records, stale in ((None, False), ("", True)):  # of an older model; there was no record
        card = MilModel.model_validate(listed[0] | {"records": records})
        assert _aged(access, card).stale == stale


def test_a_stored_case_is_answered_by_the_network_that_did_not_see_its_patient(
    client: TestClient, model: dict[str, Any]
) -> None:
    answers = [ask(client, model, case=f"C{at:02d}") for at in range(1, CASES, 2)]

    assert {(one["networks"], one["unseen"]) for one in answers} == {(1, "applied")}
    assert np.mean([next(iter(one["probabilities"])) == "AML" for one in answers]) > 0.9
    top = [one["cells"][0]["item"]["label"] for one in answers]
    assert np.mean([label == "blast" for label in top]) > 0.8
    for one in answers:
        assert sum(cell["attention"] for cell in one["cells"]) == pytest.approx(1, abs=1e-4)
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert (one["label"] is None) != one["sure"]


def test_cells_are_told_by_what_they_do_for_a_class(
    client: TestClient, model: dict[str, Any]
) -> None:
    sick = [ask(client, model, case=f"C{at:02d}", order="effect") for at in range(1, CASES, 2)]
    other = ask(client, model, case="C01", order="effect", towards="healthy")

    assert {one["towards"] for one in sick} == {"AML"}
    assert np.mean([one["cells"][0]["item"]["label"] == "blast" for one in sick]) > 0.8
    for one in (*sick, other):
        effects = [cell["effect"] for cell in one["cells"]]
        assert effects == sorted(effects, reverse=True)
    for_healthy = {cell["cell"]: cell["effect"] for cell in other["cells"]}
    for cell in sick[0]["cells"]:
        assert for_healthy[cell["cell"]] == pytest.approx(-cell["effect"], abs=1e-3)


def test_a_new_case_is_answered_by_all_networks_and_one_of_a_known_patient_is_not(
    client: TestClient, model: dict[str, Any]
) -> None:
    rows = [one.vector.tolist() for one in _entries()[8:16]]
    question = {"vectors": rows, "fingerprint": CARD.fingerprint}

    new = ask(client, model, **question, about={"patient": "somebody else"})
    known = ask(client, model, **question, about={"patient": "P01"}, top=3)
    unknown = ask(client, model, **question)

    assert (new["networks"], new["unseen"]) == (3, "applied")
    assert (known["networks"], known["unseen"], len(known["cells"])) == (1, "applied", 3)
    assert unknown["unseen"] == "impossible"
    assert new["cells"][0]["cell"] in (0, 1)


def test_cases_are_compared_as_a_model_pools_them(service: Service, model: dict[str, Any]) -> None:
    def found(case: str, **question: Any) -> list[str]:
        asked = CaseQuestion(case=case, k=5, distance="learned", **question)
        return [one.value for one in similar_cases(service.context("cells"), asked).cases]

    right = []
    for at in range(1, CASES, 2):
        exact = found(f"C{at:02d}", model=model["id"])
        assert found(f"C{at:02d}", model=model["id"], candidates=5) == exact  # by kept points
        right.append(sum(int(case[1:]) % 2 for case in exact) / 5)
    assert np.mean(right) > 0.9
    with pytest.raises(BadQuestion, match="needs `model`"):
        found("C01")
    with pytest.raises(NoSuchModel):
        found("C01", model="0" * 32)


def test_a_case_is_pooled_by_networks_that_did_not_see_the_patient_whom_its_record_names(
    tmp_path: Path,
) -> None:
    seen: list[list[str]] = []

    def pool(patients: Sequence[str], cells: Vectors, weights: Floats) -> Vectors:
        seen.append(sorted(patients))
        return cells[0]

    bare = [
        replace(e, item=e.item.model_copy(update={"patient": None})) if e.item.case == "C03" else e
        for e in _entries()
    ]
    other = random_service(tmp_path, bare)
    context = replace(other.context(), learned=lambda model: pool)
    asked = CaseQuestion(case="C01", k=5, distance="learned", model="0" * 32, candidates=5)
    similar_cases(context, asked)
    similar_cases(context, asked.model_copy(update={"case": "C03"}))
    before = list(seen)
    cells, change = other.collection("cells"), CaseChange(case="C03", patient="P03")
    cells.cases.change(CaseRecordsWanted(changes=(change,)), cells.store, "test")
    seen.clear()
    similar_cases(context, asked)
    other.close()

    assert ["(of C03)"] in before  # as in training: a patient of its own
    assert ["P03"] in seen
    assert [] not in [*before, *seen]


def test_a_case_like_no_other_is_not_sure(client: TestClient, model: dict[str, Any]) -> None:
    rows = [[0, 0, 0, 0, -1, at / 10] for at in range(5)]

    answer = ask(client, model, vectors=rows, fingerprint=CARD.fingerprint)

    assert not answer["sure"]
    assert answer["label"] is None
    assert "unlike" in answer["reason"]


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"label": "stage"}, "column 'stage', got none"),
        (
            {"values": {"C00": {"grade": "low"}, "C01": {"grade": "high"}}, "label": "grade"},
            "with 1",
        ),
        ({"task": "survival", "label": "months", "event": "died"}, "at least 4 patients"),
        (
            {"task": "survival", "label": "t", "values": {"C00": {"t": "soon", "event": "yes"}}},
            "'t' must be a time",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(
    client: TestClient, plan: dict[str, Any], words: str
) -> None:
    job = trained(client, **plan)

    assert job["state"] == "failed"
    assert words in job["error"]


def test_without_torch_training_says_what_to_type_and_answers_go_on(
    client: TestClient, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "find_spec", lambda name: None)

    refused = client.post("/v1/collections/cells/mil/models", json=PLAN)

    assert refused.status_code == 503
    assert "uv sync" in refused.json()["detail"]
    assert ask(client, model, case="C01")["probabilities"]


def test_damaged_weights_are_refused_and_a_deleted_model_is_gone(
    client: TestClient, service: Service
) -> None:
    model = trained(client, pooling="mean", epochs=1)["result"]
    path: Path = service.models.folder / model["id"] / "weights.npz"
    content = path.read_bytes()
    path.write_bytes(content[:-200])
    damaged = client.post(
        "/v1/collections/cells/mil/predict", json={"model": model["id"], "case": "C01"}
    )
    gone = client.delete(f"/v1/collections/cells/mil/models/{model['id']}")
    again = client.post(
        "/v1/collections/cells/mil/predict", json={"model": model["id"], "case": "C01"}
    )

    assert damaged.status_code == 422
    assert "damaged" in damaged.json()["detail"]
    assert gone.status_code == 200
    assert again.status_code == 404
    assert not path.parent.exists()


def test_a_model_of_white_cells_leaves_out_what_a_finder_took_for_red_ones(
    tmp_path: Path,
) -> None:
    entries = [
        replace(one, notes={"cell": "white" if at % 4 else "red"})
        for at, one in enumerate(_entries())
    ]
    service = random_service(tmp_path, entries)
    try:
        cells = service.collection("cells")
        values = {f"C{at:02d}": {"sick": "yes" if at % 2 else "no"} for at in range(CASES)}
        plan = MilPlan(label="sick", values=values, found="white", pooling="mean", epochs=2)
        made = train(cells, plan)

        assert (made.card.cells, made.card.kinds) == (6 * CASES, ("white",))
        card = service.models.keep(made)
        answer = predict(
            service.context("cells"),
            service.models.open(card.id, "cells"),
            MilQuestion(model=card.id, case="C03"),
        )
        assert answer.looked_at == 6
    finally:
        service.close()


def test_a_snapshot_has_the_models_and_brings_them_back_once(
    service: Service, model: dict[str, Any], tmp_path: Path
) -> None:
    snapshot(service.library, "cells", tmp_path / "snap.tar")
    other = Library.open(tmp_path / "other")
    for name in (None, None, "copy"):
        restore(other, tmp_path / "snap.tar", name)

    kept = Models(other.folder / "mil")
    [back], [copy] = kept.all("cells"), kept.all("copy")
    assert back == service.models.get(model["id"], "cells")
    assert copy.id != back.id
    assert kept.open(copy.id, "copy").card.model_fingerprint == model["model_fingerprint"]


def test_what_a_killed_training_or_deletion_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ("a" * 32)).mkdir()
    (tmp_path / ("a" * 32) / WEIGHTS).write_bytes(b"half")
    (tmp_path / ("b" * 32)).mkdir()
    (tmp_path / ("b" * 32) / MODEL).write_text("{}")
    Models(tmp_path).sweep()

    assert [path.name for path in tmp_path.iterdir()] == ["b" * 32]
