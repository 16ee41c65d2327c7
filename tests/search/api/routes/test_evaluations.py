"""Evaluations over HTTP: started as jobs, watched, read, opened item by item, forgotten."""

from __future__ import annotations

import io
import json
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from random_library import CARD, random_entries, random_service

from benchmarks.fuzz_api import LABELS, png, small_library
from search.api.app import create_app
from search.client.client import Client
from search.client.evaluations import wait_for
from search.client.transport import ServiceError
from search.evaluation.uploaded_sets import BadSet, _pictures
from search.library.reviews import Reviews
from search.library.shards import make_shard_bytes
from search.schemas.evaluations import EvaluationPlan, EvaluationRecord
from search.schemas.filters import Filter
from search.security.keys import Keys
from search.service import Service
from search.settings import Settings

PLAN = EvaluationPlan(ks=(1, 5), resamples=20, ann_sample=20)


class Connected(Client):
    """The client over an application in this process."""

    def __init__(self, http: TestClient) -> None:
        super().__init__("http://localhost")
        self._app = http

    def _call(self, method: str, path: str, **request: object) -> httpx.Response:
        request.pop("timeout", None)
        response = self._app.request(method, path, **request)  # type: ignore[arg-type]
        if not response.is_success:
            raise ServiceError(response.status_code, "", response.text)
        return response


@pytest.fixture(name="service")
def _service(tmp_path: Path, rng: np.random.Generator) -> Iterator[Service]:
    service = random_service(tmp_path, random_entries(rng, 120, 12))
    yield service
    service.close()


@pytest.fixture(name="client")
def _client(service: Service) -> Iterator[Connected]:
    with TestClient(create_app(service), base_url="http://localhost") as http:
        yield Connected(http)


@pytest.fixture(name="squares")
def _squares(tmp_path: Path) -> Iterator[Connected]:
    """A service whose encoder is a real one, over coloured squares."""
    small_library(tmp_path / "squares")
    service = Service.open(Settings(library=tmp_path / "squares"))
    with TestClient(create_app(service), base_url="http://localhost") as http:
        yield Connected(http)
    service.close()


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def done(client: Client, plan: EvaluationPlan, labelled: bytes | None = None) -> EvaluationRecord:
    started = client.evaluate(plan, labelled)
    return wait_for(client.evaluation, started.id, every_s=0.01)


def test_an_evaluation_is_a_job_with_progress_and_a_result_that_can_be_run_again(
    client: Connected, service: Service
) -> None:
    started = client.evaluate(PLAN)
    seen: list[int] = []
    record = wait_for(client.evaluation, started.id, lambda r: seen.append(r.done), 0.01)

    assert started.state in ("queued", "running")
    assert (record.state, record.error, record.stale) == ("done", None, False)
    assert record.result is not None
    assert [one.method for one in record.result.methods] == ["1-NN", "5-NN", "linear probe"]
    assert record.headline is not None
    assert record.headline.weighted_f1 == max(
        one.scores.weighted_f1 for one in record.result.methods if one.k is not None
    )
    assert seen == sorted(seen)
    second = done(client, record.plan)
    again = second.result
    assert again is not None
    assert again.model_copy(update={"seconds": {}}) == record.result.model_copy(
        update={"seconds": {}}
    )
    pair = client.paired(record.id, second.id, "5-NN")
    assert (pair.asked, pair.verdict) == (record.result.data.asked, "not shown")
    assert (pair.first.id, pair.second.encoder) == (record.id, record.encoder)
    with pytest.raises(ServiceError, match="no method '7-NN'"):
        client.paired(record.id, second.id, "5-NN", "7-NN")
    listed = client.evaluations("cells")
    assert {one.id for one in listed} == {record.id, second.id}
    assert len(listed) == 2
    assert all(one.result is None and one.headline for one in listed)
    assert service.jobs.get(record.id).kind == "evaluation"


def test_every_cell_of_a_confusion_can_be_opened(client: Connected) -> None:
    record = done(client, PLAN)
    assert record.result is not None
    (method,) = [one for one in record.result.methods if one.method == "5-NN"]

    total = 0
    for row, truth in zip(method.confusion.matrix, record.result.labels, strict=True):
        for count, predicted in zip(row, record.result.labels, strict=True):
            found = client.evaluation_answers(record.id, "5-NN", truth=truth, said=predicted)
            assert found.total == count == len(found.answers)
            assert all((one.truth, one.said) == (truth, predicted) for one in found.answers)
            assert all(one.right == (truth == predicted) for one in found.answers)
            margins = [one.margin for one in found.answers]
            assert margins == sorted(margins, reverse=True)
            total += count
    unanswered = client.evaluation_answers(record.id, "5-NN", unanswered=True)
    assert total + unanswered.total == record.result.data.asked
    wrong = client.evaluation_answers(record.id, "5-NN", right=False, limit=3, offset=1)
    assert len(wrong.answers) == 3
    item = wrong.answers[0]
    assert item.stored
    assert client.item(item.item).label == item.truth
    with pytest.raises(ServiceError, match="it has 1-NN, 5-NN, linear probe"):
        client.evaluation_answers(record.id, "7-NN")


def test_a_result_survives_a_restart_and_is_stale_after_a_write(
    client: Connected, service: Service, rng: np.random.Generator
) -> None:
    record = done(client, PLAN)
    plain = done(client, PLAN.model_copy(update={"labels": "recorded"}))
    cells = service.collection("cells")
    item = cells.store.scroll(Filter(), 1).items[0].item
    Reviews(cells.versions).add([(item, "a reviewer's label", None)], "a key")
    assert client.evaluation(record.id).stale
    assert not client.evaluation(plain.id).stale
    assert not done(client, PLAN).stale
    service.collection("cells").add(random_entries(rng, 5, 2))
    assert client.evaluation(plain.id).stale
    service.close()

    again = Service(service.library, service.settings)
    found = again.evaluations.get(record.id)
    assert found.result == record.result
    for one in again.evaluations.all():
        assert again.evaluations.end(one.id).state == "done"
    assert again.evaluations.all() == []
    again.close()


def test_what_the_data_does_not_allow_fails_in_words_and_stays_in_the_list(
    client: Connected, service: Service
) -> None:
    none = PLAN.model_copy(update={"where": Filter(label=("no such label",))})
    record = done(client, none)

    assert record.state == "failed"
    assert record.error is not None
    assert "at least 20 labelled items of two labels, got 0 of 0" in record.error
    assert [one.state for one in client.evaluations()] == ["failed"]
    with pytest.raises(ServiceError, match="is failed; only one that is done"):
        client.evaluation_answers(record.id, "5-NN")
    client.end_evaluation(record.id)
    with pytest.raises(ServiceError, match="may have been forgotten"):
        client.evaluation(record.id)


def test_one_that_waits_or_runs_is_stopped(client: Connected) -> None:
    first, second = client.evaluate(PLAN), client.evaluate(PLAN)
    client.end_evaluation(second.id)
    assert wait_for(client.evaluation, second.id, every_s=0.01).state == "stopped"
    assert wait_for(client.evaluation, first.id, every_s=0.01).state == "done"


def test_an_uploaded_set_is_predicted_from_the_collection(squares: Connected) -> None:
    labels = list(LABELS)
    files = {
        f"set/{labels[at % 3]}/{at}.png": png(LABELS[labels[at % 3]], 1000 + at) for at in range(12)
    }
    files["set/.DS_Store"] = b"-"
    record = done(squares, PLAN, zipped(files))

    assert record.state == "done", record.error
    assert record.result is not None
    facts = record.result.data
    assert facts.uploaded is not None
    assert (facts.uploaded.kind, facts.uploaded.items, facts.asked) == ("zip", 12, 12)
    assert record.result.split.name == "uploaded"
    assert record.result.methods[0].scores.accuracy > 0.9
    answer = squares.evaluation_answers(record.id, "5-NN").answers[0]
    assert not answer.stored


def test_a_picture_of_the_collection_is_no_reference_for_itself(squares: Connected) -> None:
    labels = list(LABELS)
    files = {f"{labels[at % 3]}/{at}.png": png(LABELS[labels[at % 3]], at) for at in range(6)}
    record = done(squares, PLAN, zipped(files))

    assert record.result is not None, record.error
    assert any(
        "share a patient, case or source with the set" in note for note in record.result.notes
    )


def test_a_manifest_names_patients_and_a_set_can_be_split_in_itself(squares: Connected) -> None:
    labels, lines, files = list(LABELS), ["path,label,patient,acquired"], {}
    for at in range(30):
        files[f"{at}.png"] = png(LABELS[labels[at % 3]], 500 + at)
        lines.append(f"{at}.png,{labels[at % 3]},P{at // 5},2024-01-{at + 1:02}")
    files["manifest.csv"] = "\n".join(lines).encode()
    record = done(squares, PLAN.model_copy(update={"teach": "set"}), zipped(files))

    assert record.result is not None, record.error
    assert (record.result.unit, record.result.clusters) == ("patient", 6)
    assert record.result.split.name == "leave-one-patient-out"
    assert record.result.index is None


def test_a_set_in_two_unicode_forms_and_with_words_for_nothing_is_read_as_meant(
    squares: Connected,
) -> None:
    decomposed = unicodedata.normalize("NFD", "Prömyelozyt")
    labels = ("blast", "Prömyelozyt", decomposed)
    lines, files = ["path,label,patient"], {}
    for at in range(30):
        label = labels[at % 3]
        name = f"{unicodedata.normalize('NFD', 'ü')}{at}.png"
        files[name] = png(LABELS[list(LABELS)[min(at % 3, 1)]], 700 + at)
        patient = ("nan", "None")[at % 2] if at < 6 else f"{label[:1]}{at // 6}"
        lines.append(f"{unicodedata.normalize('NFC', name)},{label},{patient}")
    files["manifest.csv"] = "\n".join(lines).encode()
    record = done(squares, PLAN.model_copy(update={"teach": "set"}), zipped(files))

    assert record.result is not None, record.error
    assert record.result.labels == ("Prömyelozyt", "blast")
    assert (record.result.data.without_patient, record.result.data.patients) == (6, 8)
    assert record.result.methods[0].scores.accuracy > 0.9


def test_a_shard_is_a_set_too_and_must_be_of_the_same_encoder(
    client: Connected, squares: Connected, rng: np.random.Generator
) -> None:
    shard = make_shard_bytes(random_entries(rng, 40, 5), CARD)
    record = done(client, PLAN, shard)
    assert record.result is not None, record.error
    assert record.result.data.uploaded is not None
    assert record.result.data.uploaded.kind == "shard"

    other = done(squares, PLAN, shard)
    assert other.state == "failed"
    assert "two encoders cannot be compared" in str(other.error)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.png": b"x"}, "not all of them in a folder"),
        ({"blue/a.png": b"not a picture"}, "picture 1 of the set"),
        ({"manifest.csv": b"path\nx.png"}, "needs the columns path and label"),
        ({"manifest.csv": b"path,label\nx.png,a"}, "line 2: no such file"),
        ({"manifest.csv": b"path,label\nx.png,", "x.png": b""}, "line 2: the label is empty"),
        ({"manifest.csv": "path,label\nx.png,Grün".encode("cp1252")}, "no UTF-8 (byte 19)"),
        ({"manifest.csv": b"path,label\nx.png,nan", "x.png": b"x"}, "stands for none"),
        ({"NA/a.png": b"x"}, "stands for none"),
        ({"blue/a.png": b"\0" * 10_000_000}, "times its own size"),
    ],
)
def test_a_bad_set_fails_in_words_without_naming_files(
    squares: Connected, files: dict[str, bytes], words: str
) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    record = done(squares, PLAN, out.getvalue())

    assert record.state == "failed"
    assert words in str(record.error)
    assert "a.png" not in str(record.error)


def test_what_is_no_set_and_what_is_no_plan_is_refused_at_once(client: Connected) -> None:
    with pytest.raises(ServiceError, match="neither a ZIP of pictures nor a shard"):
        client.evaluate(PLAN, b"something else")
    with pytest.raises(ServiceError, match="no set was uploaded"):
        client.evaluate(PLAN.model_copy(update={"teach": "set"}))
    with pytest.raises(ServiceError) as refused:
        client.evaluate(PLAN.model_copy(update={"collection": "nowhere"}))
    assert refused.value.status == 404
    for id in ("nothing", "0" * 32, "..", "3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11"):
        with pytest.raises(ServiceError) as refused:
            client.evaluation(id)
        assert refused.value.status == 404


def test_readers_read_and_writers_evaluate_their_own_collections(service: Service) -> None:
    keys = Keys(service.library.folder / "keys.json")
    text = {
        role: keys.add(role, roles)[1]
        for role, roles in {
            "reader": {"cells": "read"},
            "writer": {"cells": "write"},
            "stranger": {"other": "admin"},
        }.items()
    }
    body = json.loads(PLAN.model_dump_json(exclude_defaults=True))
    with TestClient(create_app(service), base_url="http://localhost") as http:

        def call(who: str, method: str, path: str, **more: object) -> httpx.Response:
            headers = {"X-API-Key": text[who]}
            return http.request(method, path, headers=headers, **more)  # type: ignore[arg-type]

        assert call("reader", "POST", "/v1/evaluations", json=body).status_code == 403
        assert call("stranger", "POST", "/v1/evaluations", json=body).status_code == 403
        started = call("writer", "POST", "/v1/evaluations", json=body)
        assert started.status_code == 202
        where = started.headers["location"]
        for _ in range(3000):
            if call("reader", "GET", where).json()["state"] == "done":
                break
        assert call("reader", "GET", f"{where}/answers?method=5-NN").status_code == 200
        assert call("stranger", "GET", where).status_code == 404
        assert call("stranger", "GET", f"{where}/answers?method=5-NN").status_code == 404
        against = f"{where}/against/{where.rpartition('/')[2]}?method=5-NN"
        assert call("stranger", "GET", against).status_code == 404
        assert call("reader", "GET", f"{against}&other_method=1-NN").status_code == 200
        assert call("stranger", "DELETE", where).status_code == 404
        assert call("stranger", "GET", "/v1/evaluations").json() == []
        assert call("reader", "DELETE", where).status_code == 403
        assert len(call("reader", "GET", "/v1/evaluations").json()) == 1
        assert call("writer", "DELETE", where).status_code == 200


def test_a_damaged_zip_is_named_as_damaged(squares: Connected) -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    content = zipped({"blue/a.png": out.getvalue()})
    record = done(squares, PLAN, content[:-30])

    assert record.state == "failed"
    assert "the ZIP is damaged" in str(record.error)


@pytest.mark.parametrize("harm", ["stream", "seek"])
def test_a_zip_that_is_damaged_within_is_refused_in_words(harm: str) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("blue/a.png", bytes(range(256)) * 20)
    content = bytearray(out.getvalue())
    if harm == "stream":
        content[45:55] = bytes(255 - byte for byte in content[45:55])
    else:  # where the directory says that it begins
        content[-6:-2] = (2**32 - 2).to_bytes(4, "little")

    with pytest.raises(BadSet, match="the ZIP is damaged"):
        list(_pictures(bytes(content), 1 << 20, []))
