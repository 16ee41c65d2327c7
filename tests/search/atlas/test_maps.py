"""Maps: the same for the same content, kept with the version, and new cells placed on them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from fastapi.testclient import TestClient
from random_library import random_entries, random_service
from versioned import mixed

from search.api.app import create_app
from search.atlas.maps import (
    CannotMap,
    Map,
    NoMap,
    compute_map,
    map_path,
    place_on,
    principal_axes,
    vectors_of,
)
from search.library.collection import Collection
from search.library.contents import Truth
from search.service import Service

N = 60


@pytest.fixture(name="service")
def _service(tmp_path: Path, rng: np.random.Generator) -> Iterator[Service]:
    service = random_service(tmp_path, random_entries(rng, N))
    yield service
    service.close()


@pytest.fixture(name="cells")
def _cells(service: Service) -> Collection:
    return service.collection()


@pytest.fixture(name="client")
def _client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), base_url="http://localhost") as client:
        yield client


def reference(cells: Collection, made: Map) -> Any:
    truth = Truth.read(cells.folder, cells.card)
    return vectors_of(truth, [UUID(id).bytes for id in made.ids])


def test_a_map_by_pca_is_the_projection_on_the_axes_of_largest_variance(cells: Collection) -> None:
    made = compute_map(cells.folder, cells.card, "pca")
    rows = reference(cells, made)
    spread = np.cov((rows - rows.mean(axis=0)).T.astype(np.float64), bias=True)
    largest = np.sort(np.linalg.eigvalsh(spread))[::-1]

    assert made.places.shape == (N, 2)
    assert made.places.var(axis=0) == pytest.approx(largest[:2], rel=1e-4)
    assert made.explained == pytest.approx(largest[:2] / largest.sum(), rel=1e-4)


def test_a_map_is_kept_whole_and_made_twice_it_is_the_same(cells: Collection) -> None:
    made = compute_map(cells.folder, cells.card, "pca")
    kept = Map.read(map_path(cells.folder, "pca"))
    again = compute_map(cells.folder, cells.card, "pca")

    assert kept.ids == made.ids
    assert (kept.places == made.places).all()
    assert (again.places == made.places).all()
    values, codes = kept.columns["label"]
    for id, code in zip(kept.ids, codes, strict=True):
        (stored,) = cells.store.get([id])
        assert stored.item.label == (None if code < 0 else values[code])


def test_a_map_of_a_part_is_the_same_part_every_time(cells: Collection) -> None:
    one = compute_map(cells.folder, cells.card, "pca", most=20)
    other = compute_map(cells.folder, cells.card, "pca", most=20)

    assert (len(one.ids), one.of) == (20, N)
    assert one.ids == other.ids


def test_tsne_keeps_neighbours_together_and_reports_progress(cells: Collection) -> None:
    reported: list[tuple[int, int]] = []
    made = compute_map(
        cells.folder, cells.card, "tsne", perplexity=8, progress=lambda *at: reported.append(at)
    )
    rows = reference(cells, made)
    near = np.argsort(-(rows @ rows.T), axis=1, kind="stable")[:, 1:4]
    flat = np.linalg.norm(made.places[:, None] - made.places[None], axis=2)
    rank = np.argsort(np.argsort(flat, axis=1), axis=1)
    kept = np.take_along_axis(rank, near, axis=1).mean()

    assert kept < 10  # of 59; by chance it would be 30
    assert reported[-1] == (750, 750)
    assert [done for done, _ in reported] == sorted(done for done, _ in reported)


def test_a_map_that_is_cancelled_leaves_nothing(cells: Collection) -> None:
    with pytest.raises(NoMap, match="cancelled"):
        compute_map(cells.folder, cells.card, "tsne", stop=lambda: True)

    assert not map_path(cells.folder, "tsne").exists()


def test_too_few_items_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    service = random_service(tmp_path, random_entries(rng, 2))
    cells = service.collection()
    with pytest.raises(CannotMap, match="at least 3 items, this collection has 2"):
        compute_map(cells.folder, cells.card, "pca")
    service.close()


def test_a_stored_cell_is_placed_where_it_lies_and_others_where_their_neighbours_are(
    cells: Collection,
) -> None:
    pca = compute_map(cells.folder, cells.card, "pca")
    rows = reference(cells, pca)
    placed = place_on(pca, rows, rows[:5], 3)
    assert np.abs(placed.places - pca.places[:5]).max() < 1e-4

    tsne = compute_map(cells.folder, cells.card, "tsne", perplexity=8)
    order = {id: at for at, id in enumerate(tsne.ids)}
    banned = np.zeros(N, bool)
    banned[:10] = True
    among = place_on(tsne, reference(cells, tsne), rows[:5], 3, banned)
    for place, nearest in zip(among.places, among.nearest, strict=True):
        at = [order[id] for id in nearest]
        assert min(at) >= 10  # nobody of the same patient pulls
        assert place == pytest.approx(np.median(tsne.places[at], axis=0))


def test_axes_point_the_same_way_whatever_the_order_of_the_rows(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(50, 6)).astype(np.float32)
    one, _ = principal_axes(rows, 2)
    other, _ = principal_axes(rows[::-1], 2)

    assert np.abs(one - other).max() < 1e-4


def ended(client: TestClient, path: str) -> dict[str, Any]:
    for _ in range(3000):
        job: dict[str, Any] = client.get(path).json()
        if job["state"] not in ("queued", "running"):
            return job
        time.sleep(0.01)
    raise AssertionError(job)


def test_maps_over_http_are_read_computed_and_follow_the_collection(client: TestClient) -> None:
    at = "/v1/collections/cells/map"

    lacking = client.get(at, params={"method": "tsne"})
    assert lacking.status_code == 404
    assert "POST /v1/collections/cells/map starts it" in lacking.json()["detail"]
    pca = client.get(at).json()
    assert len(pca["ids"]) == len(pca["x"]) == len(pca["columns"]["site"]["codes"]) == N
    started = client.post(at, json={"method": "tsne", "perplexity": 5})
    assert started.status_code == 202
    job = ended(client, started.headers["location"])
    assert (job["state"], job["result"]["items"]) == ("done", N)
    assert client.get(at, params={"method": "tsne"}).json()["stale"] is False

    gone = pca["ids"][0]
    client.post("/v1/collections/cells/items/remove", json={"ids": [gone]})
    after = client.get(at).json()
    stale = client.get(at, params={"method": "tsne"}).json()
    assert (len(after["ids"]), after["stale"]) == (N - 1, False)  # computed anew
    assert (len(stale["ids"]), stale["stale"]) == (N - 1, True)
    assert gone not in stale["ids"]
    listed = {one["method"]: one["stale"] for one in client.get(f"{at}s").json()}
    assert listed == {"pca": False, "tsne": True}


def test_cells_are_placed_over_http_and_bad_questions_are_answered_in_words(
    client: TestClient, service: Service
) -> None:
    at = "/v1/collections/cells/map/place"
    pca = client.get("/v1/collections/cells/map").json()

    placed = client.post(at, json={"items": pca["ids"][:3]}).json()
    for axis in "xy":
        assert [cell[axis] for cell in placed["cells"]] == pytest.approx(pca[axis][:3], abs=1e-3)
    near = {id for cell in placed["cells"] for id in cell["nearest"]}
    assert near.isdisjoint(pca["ids"][:3])  # an item is no neighbour of its own
    for bad, words in (
        ({}, "exactly one of"),
        ({"vectors": [[1, 0]]}, "fingerprint"),
        ({"vectors": [[1, 0], [1]], "fingerprint": pca["fingerprint"]}, "same length"),
    ):
        answer = client.post(at, json=bad)
        assert answer.status_code == 422, bad
        assert words in answer.json()["detail"]
    other = {"vectors": [[1] * 6], "fingerprint": mixed(1).card.fingerprint}
    assert client.post(at, json=other).status_code == 409


def test_effects_of_origin_come_over_http(client: TestClient) -> None:
    found = client.get("/v1/collections/cells/batch-effects", params={"field": "site"}).json()

    assert found["field"] == "site"
    assert 0 <= found["share"] <= 1
    assert {one["value"] for one in found["origins"]} == {"site 0", "site 1", "site 2"}
