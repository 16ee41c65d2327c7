"""The settings of an index reach the engine, and no answer becomes a worse one unnoticed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from encoder.card import EncoderCard
from search.index.contract import IndexSettings, Vectors, checked_vectors
from search.index.embedded import EdgeStore
from search.index.engine import conditions
from search.index.server import ServerStore, described
from search.maintenance.checks import Limits, recall
from search.schemas.filters import Filter
from search.schemas.items import Item, item_id, source_id

CARD = EncoderCard(id="made", architecture="made", dim=64)
GRAPH = {"graph_from_kb": 100, "scan_below_kb": 10}
SETTINGS = {
    "plain": IndexSettings(**GRAPH),
    "int8": IndexSettings(quantize="int8", **GRAPH),
    "vectors on disk": IndexSettings(vectors_on_disk=True, **GRAPH),
    "all on disk": IndexSettings(
        quantize="int8", vectors_on_disk=True, graph_on_disk=True, **GRAPH
    ),
}


def made(n: int) -> tuple[list[Item], Vectors]:
    rng = np.random.default_rng(0)
    sources = [source_id(str(at).encode()) for at in range(n)]
    items = [
        Item(id=item_id("d", s), dataset="d", source=s, label=f"l{at % 10}")
        for at, s in enumerate(sources)
    ]
    centres = rng.normal(size=(20, 64))
    rows = centres[rng.integers(20, size=n)] + rng.normal(size=(n, 64))
    return items, checked_vectors(rows, 64)


@pytest.mark.parametrize("name", SETTINGS)
def test_with_every_setting_the_graph_finds_what_exact_search_finds(
    tmp_path: Path, name: str
) -> None:
    items, rows = made(1500)
    with EdgeStore.create(tmp_path / "cells", "cells", CARD, SETTINGS[name]) as store:
        store.upsert(items, rows)
        report = store.build()
    with EdgeStore.open(tmp_path / "cells", "cells", CARD) as store:
        assert store.settings.quantize == SETTINGS[name].quantize
        assert report.sample > 50, "there is a graph to measure"
        assert recall(report, Limits()).passed
        stored = store.get([items[3].id])[0]
        assert np.array_equal(stored.vector, rows[3]), "the floats stay what they were"
        for where in (None, Filter(label=("l3",))):
            for hit in store.nearest(rows[5], 10, where):
                at = items.index(hit.item)
                assert hit.score == pytest.approx(float(rows[at] @ rows[5]), abs=1e-5)


def test_the_engine_keeps_the_bytes_only_where_the_settings_say_so(tmp_path: Path) -> None:
    items, rows = made(1500)
    for name in ("plain", "int8"):
        with EdgeStore.create(tmp_path / name, name, CARD, SETTINGS[name]) as store:
            store.upsert(items, rows)
            store.build()
        there = [path for path in (tmp_path / name).rglob("*") if "quantized" in str(path)]
        assert bool(there) is (name == "int8")


def test_a_shard_says_how_it_was_made(tmp_path: Path) -> None:
    EdgeStore.create(tmp_path / "cells", "cells", CARD, SETTINGS["all on disk"]).close()
    (shard,) = (tmp_path / "cells").glob("shard-*")
    facts = json.loads((shard / "edge_config.json").read_text())
    assert "int8" in json.dumps(facts)


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"quantize": "int4"}, {"oversampling": 0.5}, {"oversampling": float("nan")}):
        with pytest.raises(ValueError, match="quantize"):
            IndexSettings(**wrong)


def test_all_that_a_wide_walk_looked_at_is_compared_again() -> None:
    settings = IndexSettings(quantize="int8", ef=256)

    assert settings.rescored(16) == 16
    assert settings.rescored(200) == 2, "never fewer than the setting says"
    assert settings.rescored(1) == 100, "more is not accepted by the setting"


@pytest.mark.parametrize("filter_ids", [40, 500, 900])
def test_under_a_set_of_values_few_are_all_compared_some_walked_past_and_most_walked_as_all(
    tmp_path: Path, filter_ids: int
) -> None:
    """Twice as many as under one value: 20 KiB of rows of 256 bytes are 80."""
    items, rows = made(1500)
    with EdgeStore.create(tmp_path / "cells", "cells", CARD, SETTINGS["plain"]) as store:
        store.upsert(items, rows)
        store.build()
        where = Filter(ids=tuple(item.id for item in items[:filter_ids]))

        assert store._few(store._left(conditions(where))[0]) is (filter_ids == 40)
        [query] = store._queries(rows[5:6], 10, where, [None], exact=False)
        assert query.mixed is (filter_ids < 900), "beyond 40 % the engine does not look past"
        found = store.nearest(rows[5], 10, where)
        truth = store.nearest(rows[5], 10, where, exact=True)
        store._widen(12 * IndexSettings.ef)
        assert store._few(store._left(conditions(where))[0]), (
            "a walk takes twelve times as long then"
        )

    assert [hit.item.id for hit in found] == [hit.item.id for hit in truth]


class Recorder(BaseHTTPRequestHandler):
    requests: list[tuple[str, str, Any]]

    def answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.requests.append((self.command, self.path, body))
        text = b'{"result": {"exists": false, "points": []}, "status": "ok", "time": 0}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST = do_DELETE = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def recorded() -> Iterator[tuple[str, type[Recorder]]]:
    handler = type("Handler", (Recorder,), {"requests": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


def test_a_server_gets_the_same_settings() -> None:
    with recorded() as (url, handler):
        client = QdrantClient(url=url, check_compatibility=False, timeout=5)
        with suppress(Exception):  # the stub's answers are no collection; what it heard counts
            clustered = replace(SETTINGS["all on disk"], shards=6, replicas=2)
            ServerStore.create(client, "cells", CARD, clustered)
        client.close()
    (body,) = [body for how, path, body in handler.requests if (how, path[:18]) == CREATED]

    assert (body["shard_number"], body["replication_factor"]) == (6, 2)
    assert body["write_consistency_factor"] == 2
    assert body["vectors"]["on_disk"] is True
    assert body["hnsw_config"]["on_disk"] is True
    assert body["quantization_config"]["scalar"]["type"] == "int8"
    assert body["quantization_config"]["scalar"]["always_ram"] is True


CREATED = ("PUT", "/collections/cells")


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local")
def test_the_settings_come_back_from_the_metadata_of_a_collection() -> None:
    client = QdrantClient(":memory:")
    ServerStore.create(client, "cells", CARD, SETTINGS["all on disk"])
    assert described(client, "cells")[1] == SETTINGS["all on disk"]
    client.close()
