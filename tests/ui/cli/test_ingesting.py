"""An ingest at the terminal: its report, its ledger, and what stops it in a laboratory."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from disks import small_disk
from numpy.typing import NDArray
from PIL import Image
from qdrant_standin import standin

from benchmarks.made import blob, glass, level_of, svs_description, write_tiff
from encoder.contract import RGB, Encoder, NoPatchTokens
from encoder.registry import load
from encoder.stains.normalisers import StainError
from ingest.layouts.known import scan
from ingest.layouts.scan import Options
from ingest.pipeline.ledger import Ledger, RunRow, ledger_path
from ingest.pipeline.sink import ServiceSink
from search.disk.space import RESERVE, DiskTrouble
from search.errors import StoreDown, StoreError
from search.index.contract import scroll_all
from search.library.indexes import stores_at
from search.library.library import Library
from search.maintenance.reconcile import reconcile
from search.query.answer import answer as search
from search.schemas.questions import Question
from search.service import Service
from search.settings import Settings
from ui.cli.backend import running_service
from ui.cli.demo import free_port
from ui.cli.ingesting import Request, encoder_of, perform, run_ingest


def slide(path: Path, rng: np.random.Generator) -> Path:
    picture = blob(256, 384, rng, share=0.5)
    return write_tiff(path, [level_of(picture)], description=svs_description(384, 256))


def png(image: np.ndarray) -> bytes:
    out = BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def settings_of(folder: Path) -> Settings:
    return Settings(library=folder / "library", encoder="colour", _env_file=None)


def test_a_query_of_a_normalised_collection_is_normalised_too(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = slide(tmp_path / "a.svs", rng)
    settings = settings_of(tmp_path)
    run = perform(Request(paths=[path], tile_px=64, stain_norm="macenko"), settings)
    assert run.report.stored > 3
    pixels = np.asarray(Image.open(path).convert("RGB"))

    service = Service.open(settings)
    try:
        collection = service.collection()
        stored = [one.item for one in scroll_all(collection.store)]
        box = stored[len(stored) // 2].bbox
        assert box is not None
        query = pixels[box.y : box.y + box.h, box.x : box.x + box.w]
        answer = search(service.context(), Question(k=3, exclude=()), png(query))
        blank = search(service.context(), Question(k=3), png(glass(64, 64, rng)))
    finally:
        service.close()

    assert collection.card.stain == "macenko-1"
    assert answer.hits[0].item.id == stored[len(stored) // 2].id
    assert answer.hits[0].score > 0.99999
    assert not any("normalisation" in warning for warning in answer.warnings)
    assert any("macenko-1" in warning and "as it is" in warning for warning in blank.warnings)


@pytest.mark.parametrize("method", ["macenko", "reinhard", "vahadane"])
def test_tiles_take_the_colours_of_an_image_and_queries_follow(
    method: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    path, target = slide(tmp_path / "a.svs", rng), tmp_path / "target.png"
    target.write_bytes(png(np.rint(blob(128, 128, rng, share=0.9) * (1, 0.9, 0.95)).astype("u1")))
    settings = settings_of(tmp_path)
    request = Request(paths=[path], tile_px=64, stain_norm=method, stain_target=target)
    perform(request, settings)
    pixels = np.asarray(Image.open(path).convert("RGB"))

    service = Service.open(settings)
    try:
        collection = service.collection()
        stored = [one.item for one in scroll_all(collection.store)]
        box = stored[len(stored) // 2].bbox
        assert box is not None
        query = pixels[box.y : box.y + box.h, box.x : box.x + box.w]
        answer = search(service.context(), Question(k=1, exclude=()), png(query))
    finally:
        service.close()

    assert str(collection.card.stain).startswith(f"{method}-")
    assert answer.hits[0].item.id == stored[len(stored) // 2].id
    assert answer.hits[0].score > 0.99999
    assert Request.of_kept(request.kept()) == request


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stain_target": "empty.png"}, "--stain-target needs --stain-norm"),
        (
            {"stain_norm": "reinhard", "stain_target": "empty.png"},
            r"empty\.png: .*too little stain",
        ),
    ],
)
def test_a_stain_target_that_cannot_apply_is_refused(
    given: dict[str, str], message: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    (tmp_path / "empty.png").write_bytes(png(glass(64, 64, rng)))
    target = tmp_path / given["stain_target"]
    request = Request(paths=[tmp_path], stain_norm=given.get("stain_norm"), stain_target=target)

    with pytest.raises(StainError, match=message):
        request.normaliser()


def cells(folder: Path, n: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for at in range(n):
        (folder / f"{at}.png").write_bytes(png(rng.integers(0, 255, (24, 24, 3), np.uint8)))
    return folder


def state(settings: Settings) -> tuple[int, str]:
    """How many items, and a digest of the index, which equals the shards."""
    with Library.open(settings.library).collection("cells") as collection:
        found = reconcile(collection, mend=False)
    assert found.equal
    return found.points, found.index


def last_run(settings: Settings) -> RunRow:
    with Ledger(ledger_path(settings.library)) as ledger:
        return ledger.runs(1)[0]


def test_an_ingest_onto_a_disk_that_fills_up_stops_in_words_and_goes_on(tmp_path: Path) -> None:
    first, second = cells(tmp_path / "first", 6, 1), cells(tmp_path / "second", 6, 2)
    both = Request(paths=[first, second], find=False)
    undisturbed = settings_of(tmp_path / "undisturbed")
    perform(both, undisturbed)
    with small_disk(tmp_path / "disk", (RESERVE >> 20) + 200) as disk:
        settings = settings_of(disk.folder)
        perform(Request(paths=[first], find=False), settings)
        disk.fill(leave=RESERVE)

        with pytest.raises(DiskTrouble, match=r"MiB are free .* make room"):
            perform(both, settings)

        assert state(settings)[0] == 6
        assert last_run(settings).state == "failed"
        assert "make room" in last_run(settings).summary
        disk.free()
        assert perform(both, settings).report.stored == 6
        assert last_run(settings).state == "done"
        assert state(settings) == state(undisturbed)


def test_an_ingest_onto_a_read_only_disk_is_refused_in_words(tmp_path: Path) -> None:
    request = Request(paths=[cells(tmp_path / "cells", 3, 1)], find=False)
    with small_disk(tmp_path / "disk", (RESERVE >> 20) + 200) as disk:
        settings = settings_of(disk.folder)
        perform(request, settings)
        disk.remount("ro")

        with pytest.raises(StoreError, match="may not be written; make the disk writable"):
            perform(request, settings)

        disk.remount("rw")
        assert perform(request, settings).report.stored == 0


def test_reports_that_cannot_be_kept_stop_the_run_in_words(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    settings = settings_of(tmp_path)
    with small_disk(settings.library / "reports", 1) as disk:
        disk.fill()

        with pytest.raises(DiskTrouble, match="the disk is full; make room"):
            perform(Request(paths=[slide(tmp_path / "a.svs", rng)], tile_px=64), settings)

        assert last_run(settings).state == "failed"
        state(settings)
        disk.free()
        run = perform(Request(paths=[tmp_path / "a.svs"], tile_px=64), settings)
        assert run.report.ok
        assert len(list(disk.folder.glob("*.json"))) == 1


class Murderer:
    """A network of `colour` that kills a process at its second batch."""

    batch_size = 4

    def __init__(self, victim: subprocess.Popen[bytes]) -> None:
        self.plain, self.victim, self.calls = load("colour"), victim, 0

    def vectors(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        self.calls += 1
        if self.calls == 2:
            self.victim.kill()
            self.victim.wait()
        return self.plain.embed(images)

    def tokens(self, images: Sequence[RGB]) -> NoReturn:
        raise NoPatchTokens("colour")


def serve(settings: Settings) -> subprocess.Popen[bytes]:
    words = ["serve", "--library", str(settings.library), "--port", str(settings.port)]
    service = subprocess.Popen([sys.executable, "-m", "ui", *words], stderr=subprocess.DEVNULL)
    for _ in range(600):
        client = running_service(settings)
        if client is not None:
            client.close()
            return service
        time.sleep(0.05)
    service.kill()
    raise AssertionError("the service did not start")


def test_an_ingest_whose_service_is_killed_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ServiceSink.__init__.__kwdefaults__, "pause_s", 0.0)
    found = scan(cells(tmp_path / "cells", 12, 1), None, Options(find=False))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = Settings(library=tmp_path / "library", port=port, _env_file=None)
    service = serve(settings)
    try:
        encoder = Encoder(load("colour").card, Murderer(service))
        with pytest.raises(StoreDown, match=r"does not take the data .* start it again, then run"):
            run_ingest([found], settings, encoder, "colour")
    finally:
        service.kill()
        service.wait()

    assert last_run(settings).state == "failed"
    assert state(settings)[0] < 12
    again = run_ingest([scan(found.root, None, found.options)], settings, load("colour"), "colour")
    assert again.report.ok
    assert state(settings)[0] == 12


def test_a_collection_grows_with_its_own_encoder_where_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from encoder import registry

    settings = Settings(library=tmp_path / "library")
    monkeypatch.setattr(registry, "default_encoder", lambda: "measured")
    assert encoder_of(settings) == "measured"
    encoder = registry.load("colour")
    Library.open(settings.library).create(settings.collection, encoder.card, "colour").close()

    assert encoder_of(settings) == "colour"


def test_a_run_whose_vector_server_is_killed_says_so_and_goes_on_where_it_was(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    root = tmp_path / "lab" / "EO"
    root.mkdir(parents=True)
    for at in range(1100):  # more than a shard
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(root / f"{at}.bmp")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = settings_of(tmp_path).model_copy(update={"qdrant_url": url})
    request = Request(paths=[root.parent])

    with (
        standin(port, tmp_path / "server", die_after=2),
        pytest.raises(StoreDown, match="the vector server does not answer"),
    ):
        perform(request, settings)
    with pytest.raises(StoreDown, match="is it running"):
        perform(request, settings)
    with standin(port, tmp_path / "server"):
        done = perform(request, settings).report
        again = perform(request, settings).report
        with Library.open(settings.library, stores_at(url, None)).collection("cells") as collection:
            found = reconcile(collection, mend=False)
            stored = collection.store.count()

    assert done.stored + done.unchanged == stored == 1100
    assert (again.stored, again.unchanged) == (0, 1100)
    assert found.equal
    with Ledger(ledger_path(settings.library), "cells") as ledger:
        assert [run.state for run in ledger.runs()] == ["done", "done", "failed"]
