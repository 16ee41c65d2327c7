"""Refined searches, cases and calibration over HTTP, through the client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from encoder.registry import load
from search.api import app as api
from search.api.app import create_app
from search.api.routes import questions as questions_routes
from search.client.questions import QuestionCalls
from search.library.library import Library
from search.library.shards import Entry, make_thumbnail
from search.schemas.calibration import CalibrationPlan
from search.schemas.cases import CaseQuestion
from search.schemas.filters import Filter
from search.schemas.items import Item, item_id, source_id
from search.schemas.questions import Refinement
from search.service import Service
from search.settings import Settings

COLOURS = {"EO": (200, 90, 60), "LY": (70, 60, 160)}


def png(colour: tuple[int, int, int], seed: int) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 25, (40, 40, 3))
    image = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    out = BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


class Connected(QuestionCalls):
    """The client's calls over the test's own connection."""

    def __init__(self, http: TestClient) -> None:
        self.http = http

    def _call(self, method: str, path: str, **request: Any) -> Any:
        request.pop("timeout", None)
        response = self.http.request(method, path, **request)
        assert response.status_code == 200, response.text
        return response

    def _ask(self, path: str, question: Any, image: Any, params: Any = None) -> Any:
        body = question.model_dump_json(exclude_defaults=True)
        if image is None:
            kind = {"Content-Type": "application/json"}
            return self._call("POST", path, content=body, headers=kind, params=params)
        files = {"image": ("query", image)}
        return self._call("POST", path, files=files, data={"question": body})


@pytest.fixture(name="entries")
def _entries() -> list[Entry]:
    encoder, made = load("colour"), []
    for at in range(60):
        label = list(COLOURS)[at % 2]
        content = png(COLOURS[label], at)
        pixels = np.asarray(Image.open(BytesIO(content)))
        source = source_id(content)
        item = Item(
            id=item_id("c", source),
            dataset="c",
            source=source,
            label=label,
            patient=f"P{at // 6}",
            case=f"case/{at // 6}",
            site=f"site {at % 3}",
        )
        made.append(Entry(item, encoder.embed([pixels])[0], make_thumbnail(pixels)))
    return made


@pytest.fixture(name="http")
def _http(
    tmp_path: Path, entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    if questions_routes.router not in api.ROUTERS:
        monkeypatch.setattr(api, "ROUTERS", (*api.ROUTERS, questions_routes.router))
    library = Library.open(tmp_path)
    with library.create("cells", load("colour").card) as cells:
        cells.add(entries)
    service = Service(library, Settings(library=tmp_path))
    with TestClient(create_app(service)) as http:
        yield http
    service.close()


@pytest.fixture(name="client")
def _client(http: TestClient) -> Connected:
    return Connected(http)


def test_a_search_is_refined_by_examples(client: Connected, entries: list[Entry]) -> None:
    eosinophil, lymphocyte = entries[0].item.id, entries[1].item.id

    answer = client.refine(
        Refinement(like=(eosinophil,), unlike=(lymphocyte,), k=5), png((140, 75, 110), 99)
    )

    assert {hit.item.label for hit in answer.hits} == {"EO"}


def test_cells_of_a_case_find_cases_with_such_cells(
    client: Connected, entries: list[Entry]
) -> None:
    images = [png(COLOURS["EO"], 200 + at) for at in range(3)]

    answer = client.similar_cases(CaseQuestion(k=3), images)
    stored = client.similar_cases(CaseQuestion(case="case/2", k=9))

    assert answer.cells == 3
    assert answer.differential.shares == {"EO": 1.0}
    assert len(answer.cases) == 3
    assert {case.value for case in stored.cases} == {f"case/{n}" for n in range(10)} - {"case/2"}


def test_a_case_is_found_by_a_name_with_a_slash(client: Connected) -> None:
    facts = client.case("case/3")

    assert facts.items == 6
    assert facts.patients == ("P3",)
    assert client.case("P3", by="patient").cases == ("case/3",)


def test_a_calibration_is_fitted_and_read(client: Connected, http: TestClient) -> None:
    missing = http.get("/v1/collections/cells/calibration")
    fitted = client.calibrate(CalibrationPlan(ks=(5,), sample=60), "cells")

    assert missing.status_code == 404
    assert "has no calibration" in missing.json()["detail"]
    assert client.calibration("cells") == (fitted, False)
    assert fitted.unit == "patient"


def test_facets_are_counted_under_a_filter(client: Connected) -> None:
    counts = client.facet("site", Filter(label=("EO",)), "cells")

    assert counts == {"site 0": 10, "site 1": 10, "site 2": 10}


def test_every_new_way_to_search_is_in_the_search_route(
    http: TestClient, entries: list[Entry]
) -> None:
    id = entries[0].item.id
    for more in ({"group_by": "patient"}, {"mmr": 0.5}, {"balance": "site"}, {"facets": ["label"]}):
        answer = http.post("/v1/search", json={"item": id, "k": 3, **more}).json()
        assert len(answer["hits"]) == 3
        assert answer["own_site"]["site"] == "site 0"


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/refine", {"like": []}, 422, "exactly one"),
        ("/v1/refine", {"like": ["x"]}, 422, "UUID"),
        ("/v1/refine", {"strategy": "worst"}, 422, "strategy"),
        ("/v1/cases/similar", {}, 422, "exactly one"),
        ("/v1/cases/similar", {"case": "nobody"}, 404, "nobody"),
        ("/v1/cases/similar", {"case": "case/1", "distance": "far"}, 422, "distance"),
        ("/v1/collections/cells/calibration", {"sample": 3}, 422, "sample"),
        ("/v1/collections/nosuch/calibration", {}, 404, "nosuch"),
        ("/v1/collections/cells/facets/colour", {}, 422, "field"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(
    http: TestClient, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    response = http.post(path, json=body)

    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert words in response.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/refine", "/v1/cases/similar"])
def test_a_damaged_body_is_refused_in_words(http: TestClient, path: str) -> None:
    form = http.post(path, files={"other": b"x"}, data={"question": "{}"})
    text = http.post(path, content=b"x", headers={"content-type": "text/plain"})
    image = http.post(
        path, files={"image": b"junk", "images": b"junk"}, data={"question": json.dumps({})}
    )

    assert (form.status_code, text.status_code) == (422, 422)
    assert image.status_code in (415, 422)


def test_the_bodies_are_described(http: TestClient) -> None:
    paths = http.get("/openapi.json").json()["paths"]

    for path in ("/v1/refine", "/v1/cases/similar"):
        assert "multipart/form-data" in paths[path]["post"]["requestBody"]["content"]
    assert set(paths["/v1/collections/{name}/calibration"]) == {"get", "post"}
