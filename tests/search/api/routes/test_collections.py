"""The service as a process: random calls, kills in the middle of writes, and a quiet end."""

from __future__ import annotations

import signal
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from benchmarks.fuzz_api import fuzz, small_library
from benchmarks.kill_service import CARD, cycles, shard, start
from encoder.registry import load
from search.api.app import create_app
from search.library.library import Library
from search.library.shards import Entry, make_shard_bytes, make_thumbnail
from search.schemas.items import Item, item_id, source_id
from search.security.audit import verify
from search.service import Service
from search.settings import Settings
from ui.cli.demo import free_port


def test_random_calls_of_every_route_meet_no_fault_and_keep_to_the_description(
    tmp_path: Path,
) -> None:
    settings = Settings(library=tmp_path / "library", port=free_port(), rate_limit="")
    stored = small_library(settings.library, 30)
    server = uvicorn.Server(
        uvicorn.Config(create_app(settings=settings), port=settings.port, log_level="critical")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    try:
        found = fuzz(settings.url, stored, cases=300, seed=7)
    finally:
        server.should_exit = True
        thread.join(30)

    assert found.failures == []
    assert not [status for status in found.statuses if status >= 500]
    assert found.cases >= 250
    assert found.statuses[200] > 50
    assert min(found.routes.values()) > 0


def test_points_that_were_acknowledged_outlive_kills_in_the_middle_of_writes(
    tmp_path: Path,
) -> None:
    found = cycles(tmp_path, count=2, seed=3)

    assert (found.lost, found.duplicates, found.phantoms, found.wrong) == (0, 0, 0, 0)
    assert found.sent


def test_a_terminated_service_finishes_what_it_is_writing_and_closes_its_log(
    tmp_path: Path,
) -> None:
    settings = Settings(library=tmp_path / "library", port=free_port())
    process = start(settings)
    try:
        with httpx.Client(base_url=settings.url, timeout=60) as client:
            client.put("/v1/collections/cells", content=CARD.to_json())
            content, digests = shard(1, CARD.dim)
            sent = threading.Event()

            def body() -> Any:
                yield content[:1000]
                sent.set()
                process.send_signal(signal.SIGTERM)
                yield content[1000:]

            answer = client.put("/v1/collections/cells/shards", content=body())
    finally:
        process.wait(60)

    assert sent.is_set()
    assert answer.json()["stored"] == len(digests)
    assert process.returncode in {0, -signal.SIGTERM}
    assert not (settings.library / "service.json").exists()
    assert verify(settings.library / "audit").lines == 4  # opened, two calls, closed


def test_a_write_repeated_changes_nothing(tmp_path: Path) -> None:
    stored = small_library(tmp_path / "library", 12)
    service = Service.open(Settings(library=tmp_path / "library"))
    with TestClient(create_app(service)) as client:
        shards = [
            client.put("/v1/collections/cells/shards", content=stored.shard).json()
            for _ in range(2)
        ]
        collections = [
            client.put("/v1/collections/cells", content=stored.card).json() for _ in range(2)
        ]
        item = client.get(f"/v1/items/{stored.ids[0]}").json()
        body = {"items": [{**item, "label": "new"}]}
        items = [client.patch("/v1/collections/cells/items", json=body).json() for _ in range(2)]
    service.close()

    assert shards == [{"stored": 0, "updated": 0, "unchanged": 5}] * 2
    assert collections[0] == collections[1]
    assert [one["updated"] for one in items] == [1, 0]


def test_what_a_camera_wrote_into_a_picture_is_not_passed_on(tmp_path: Path) -> None:
    """EXIF of a source - names, places - reaches neither the thumbnail nor the full picture."""
    pixels = np.full((40, 40, 3), 120, np.uint8)
    out, exif = BytesIO(), Image.Exif()
    exif[0x010E] = "Jane-Roe-1961"
    Image.fromarray(pixels).save(out, "JPEG", exif=exif)
    path = tmp_path / "photo.jpg"
    path.write_bytes(out.getvalue())
    assert b"Jane-Roe" in path.read_bytes()
    encoder, source = load("colour"), source_id(path.read_bytes())
    item = Item(id=item_id("photos", source), dataset="photos", source=source)
    entry = Entry(item, encoder.embed([pixels])[0], make_thumbnail(pixels), str(path))
    with Library.open(tmp_path / "library").create("cells", encoder.card) as cells:
        cells.add_shard(make_shard_bytes([entry], encoder.card))
    service = Service.open(Settings(library=tmp_path / "library"))
    with TestClient(create_app(service)) as client:
        address = f"/v1/items/{item.id}/image"
        pictures = [client.get(address, params={"size": size}) for size in ("thumbnail", "full")]
    service.close()

    assert [one.headers["x-hemaseek-picture"] for one in pictures] == ["thumbnail", "source"]
    for picture in pictures:
        assert b"Jane-Roe" not in picture.content
        with Image.open(BytesIO(picture.content)) as opened:
            assert not opened.getexif()
