"""Gates: kept under a name, counted by group, and stale once their map was made anew; UMAP."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from random_library import random_entries, random_service

from search.api.app import create_app
from search.atlas.gates import counted
from search.atlas.maps import Map, NoMap, compute_map, map_path, with_recorded
from search.schemas.maps import GateRecord, inside
from search.service import Service

N = 60
AT = "/v1/collections/cells"


@pytest.fixture(name="service", scope="module")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    rng = np.random.default_rng(3)
    service = random_service(tmp_path_factory.mktemp("gates"), random_entries(rng, N))
    yield service
    service.close()


@pytest.fixture(name="client", scope="module")
def _client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), base_url="http://localhost") as client:
        yield client


def everything(client: TestClient) -> list[list[float]]:
    """The corners of a gate around the left half of the PCA map."""
    drawn = client.get(f"{AT}/map").json()
    middle, low, high = float(np.median(drawn["x"])), min(drawn["y"]) - 1, max(drawn["y"]) + 1
    left = min(drawn["x"]) - 1
    return [[left, low], [middle, low], [middle, high], [left, high]]


def test_a_point_is_inside_by_the_even_odd_rule() -> None:
    bow = ((0, 0), (4, 4), (4, 0), (0, 4))  # two triangles that meet in the middle
    x, y = np.array([1.0, 3.5, 2.0, 2.0]), np.array([2.0, 2.0, 3.9, 0.1])

    assert inside(bow, x, y).tolist() == [True, True, False, False]


def test_a_gate_is_kept_listed_counted_and_removed(client: TestClient, service: Service) -> None:
    wanted = {"method": "pca", "corners": everything(client), "note": "the left half"}
    made = client.put(f"{AT}/gates/blasts of Bergen", json=wanted, params={"by": "site"})
    drawn = client.get(f"{AT}/map").json()
    listed = client.get(f"{AT}/gates", params={"by": "site"}).json()["gates"]

    assert made.status_code == 200, made.text
    assert listed == [made.json()]
    held = np.array(drawn["x"]) < np.median(drawn["x"])
    assert listed[0]["cells"] == held.sum()
    codes = np.array(drawn["columns"]["site"]["codes"])
    for count in listed[0]["counts"]:
        value = count["value"]
        at = -1 if value is None else drawn["columns"]["site"]["values"].index(value)
        assert (count["cells"], count["of"]) == ((codes[held] == at).sum(), (codes == at).sum())
        assert count["patients"] <= count["of_patients"]
    assert listed[0]["gate"]["note"] == "the left half"
    assert not listed[0]["stale"]
    assert client.delete(f"{AT}/gates/blasts of Bergen").json()["gates"] == []
    gone = client.delete(f"{AT}/gates/blasts of Bergen")
    assert gone.status_code == 404
    assert "there is no gate 'blasts of Bergen'" in gone.json()["detail"]


def test_a_gate_of_a_map_that_was_made_anew_is_stale(client: TestClient, service: Service) -> None:
    client.put(f"{AT}/gates/old", json={"method": "pca", "corners": everything(client)})
    folder = service.collection().folder
    kept = replace(Map.read(map_path(folder, "pca")), made="2031-01-01T00:00:00+00:00")
    map_path(folder, "pca").write_bytes(kept.to_bytes())

    (found,) = client.get(f"{AT}/gates").json()["gates"]
    assert found["stale"]


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ({"method": "pca", "corners": [[0, 0], [1, 1]]}, 422),
        ({"method": "tsne", "corners": [[0, 0], [1, 1], [1, 0]]}, 404),
        ({"method": "pca", "corners": [[0, 0], [1e300, 0], [0, 1]]}, 422),
    ],
)
def test_a_gate_without_an_area_or_a_map_is_refused(
    client: TestClient, wanted: dict[str, object], status: int
) -> None:
    assert client.put(f"{AT}/gates/x", json=wanted).status_code == status


def test_patients_are_counted_by_what_is_known_of_their_cases(service: Service) -> None:
    cells = service.collection()
    made = compute_map(cells.folder, cells.card, "pca")
    around = ((-9, -9), (9, -9), (9, 9), (-9, 9))
    gate = GateRecord(name="all", method="pca", corners=around, map_made=made.made, by="me", at="")
    values, codes = made.columns["case"]
    some = {values[0]: "leukaemia"} if values else {}
    bare = replace(
        made, columns={**made.columns, "patient": ((), np.full(len(made.ids), -1, np.int32))}
    )
    recorded = with_recorded(bare, {case: f"P of {case}" for case in values})
    found = counted(gate, made, np.ones(len(made.ids), bool), some)
    again = counted(gate, recorded, np.ones(len(made.ids), bool), "kind")

    assert [one.patients for one in again.counts] == [len(values)]
    by = {one.value: one for one in found.counts}
    if some:
        assert by["leukaemia"].cells == by["leukaemia"].of == (codes == 0).sum()
    assert sum(one.cells for one in found.counts) == N == found.cells


class StandIn:
    """In place of UMAP, which compiles itself for half a minute: keeps what it was given."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def fit_transform(self, rows: np.ndarray) -> np.ndarray:
        assert np.isfinite(rows).all()
        assert self.settings["init"].shape == (len(rows), 2)
        assert self.settings["n_neighbors"] < len(rows)
        return self.settings["init"]


def test_a_map_by_umap_is_kept_with_its_neighbours(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=StandIn, __spec__=True))
    cells = service.collection()
    made = compute_map(cells.folder, cells.card, "umap", neighbours=5)
    again = Map.read(map_path(cells.folder, "umap"))

    assert np.array_equal(made.places, again.places)
    assert (again.neighbours, again.perplexity, again.method) == (5, None, "umap")
    with pytest.raises(NoMap, match="cancelled"):
        compute_map(cells.folder, cells.card, "umap", stop=lambda: True)


@pytest.mark.skipif("UMAP_COMPILES" not in os.environ, reason="half a minute: set UMAP_COMPILES=1")
def test_umap_itself_is_the_same_twice(service: Service) -> None:
    cells = service.collection()
    one, two = (compute_map(cells.folder, cells.card, "umap", neighbours=5) for _ in range(2))

    assert one.places.shape == (N, 2)
    assert np.isfinite(one.places).all()
    assert np.array_equal(one.places, two.places)
