"""Files in, a searchable collection out, whatever happens on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from live import REPOSITORY
from numpy.typing import NDArray
from PIL import Image

from encoder.card import FieldsUm
from encoder.contract import RGB, Encoder, EncoderError
from encoder.features import colour
from encoder.registry import load
from ingest.layouts.known import scan
from ingest.layouts.scan import Options
from ingest.pipeline.plain import PLANNED, SMALL, plan_share
from ingest.pipeline.reading import in_order
from ingest.pipeline.run import ingest
from ingest.pipeline.sink import LibrarySink, Sink
from ingest.pipeline.states import States
from ingest.pipeline.work import How
from ingest.sources.marked import Mark, Marked
from ingest.sources.report import Progress, Report
from ingest.sources.source import Facts, Planned, Source, Task, Whole, make_item
from search.errors import StoreDown, WrongEncoder
from search.index.contract import scroll_all
from search.library.library import Library
from search.library.shards import Entry
from search.schemas.filters import Filter
from search.schemas.items import Item


@pytest.fixture(name="tmp_path")
def _tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a store syncs to the disk hundreds of times here."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def draw(path: Path, seed: int, side: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture(name="cells")
def _cells(tmp_path: Path) -> Path:
    """Two labels with three cells each."""
    for seed in range(6):
        draw(tmp_path / "cells" / ("EO" if seed < 3 else "MO") / f"{seed}.png", seed)
    return tmp_path / "cells"


@pytest.fixture(name="encoder", scope="module")
def _encoder() -> Encoder:
    return load("colour")


@pytest.fixture(name="sink")
def _sink(tmp_path: Path, encoder: Encoder) -> Iterator[LibrarySink]:
    library = Library.open(tmp_path / "library")
    with LibrarySink.open(library, "cells", encoder.card) as sink:
        yield sink


def stored(sink: LibrarySink) -> dict[str, tuple[Item, bytes]]:
    everything = scroll_all(sink._collection.store)
    return {one.item.id: (one.item, one.vector.tobytes()) for one in everything}


def run(folder: Path, encoder: Encoder, sink: Sink, **options: object) -> Report:
    found = scan(folder)
    how = How(**options)  # type: ignore[arg-type]
    return ingest(found.tasks, encoder, sink, report=found.report, how=how)


def test_a_folder_becomes_a_collection(cells: Path, encoder: Encoder, sink: LibrarySink) -> None:
    report = run(cells, encoder, sink)

    assert report.ok
    assert (report.stored, report.unchanged, report.sources) == (6, 0, 6)
    path = cells / "EO" / "0.png"
    source = Source(path, "cells")
    entry = sink._collection.rows.entry(make_item(source, Facts(), None, "cell").id)
    assert entry is not None
    assert (entry.item.label, entry.item.dataset, entry.path) == ("EO", "cells", str(path))
    assert (entry.vector == encoder.embed([source.image])[0]).all()
    assert entry.thumbnail.startswith(b"\xff\xd8")


def test_running_again_changes_nothing_and_decodes_nothing(
    cells: Path, encoder: Encoder, sink: LibrarySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(cells, encoder, sink)
    before = stored(sink)

    def refuse(*_: object, **__: object) -> RGB:
        raise AssertionError("a known image was decoded")

    monkeypatch.setattr("ingest.sources.source.decode", refuse)
    report = run(cells, encoder, sink)

    assert (report.stored, report.unchanged, report.updated, report.failed) == (0, 6, 0, 0)
    assert stored(sink) == before


def test_changed_metadata_is_updated_without_embedding(
    cells: Path, encoder: Encoder, sink: LibrarySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(cells, encoder, sink)
    before = stored(sink)
    monkeypatch.setattr(Encoder, "embed", None)

    found = scan(cells, options=Options(facts=Facts(site="Basel", um_per_px=0.1)))
    found.tasks[0] = replace(found.tasks[0], facts=Facts(label="EO"))  # as it was
    report = ingest(found.tasks, encoder, sink)

    assert (report.stored, report.unchanged, report.updated) == (0, 1, 5)
    after = stored(sink)
    assert {id: vector for id, (_, vector) in after.items()} == {
        id: vector for id, (_, vector) in before.items()
    }
    assert sum(item.site == "Basel" for item, _ in after.values()) == 5
    assert sink._collection.store.count(Filter(site=("Basel",))) == 5


def test_equal_files_are_one_item_and_both_are_named_if_their_labels_differ(
    cells: Path, encoder: Encoder, sink: LibrarySink
) -> None:
    (cells / "EO" / "copy.png").write_bytes((cells / "EO" / "0.png").read_bytes())
    (cells / "MO" / "same.png").write_bytes((cells / "EO" / "1.png").read_bytes())

    report = run(cells, encoder, sink)
    again = run(cells, encoder, sink)

    assert (report.stored, report.duplicates) == (6, 2)
    assert report.warnings == [
        f"{cells}/EO/1.png and {cells}/MO/same.png are the same image, "
        "but their labels differ: 'EO' and 'MO'; the first is kept"
    ]
    assert (again.stored, again.unchanged, again.updated, again.duplicates) == (0, 6, 0, 2)


def test_equal_files_of_two_datasets_are_two_items(
    cells: Path, encoder: Encoder, sink: LibrarySink
) -> None:
    path = cells / "EO" / "0.png"
    tasks = [Task(path=path, dataset=name, reader=Whole()) for name in ("ours", "theirs")]
    assert ingest(tasks, encoder, sink).stored == 2


def test_a_bad_file_is_reported_with_its_reason_and_the_rest_is_stored(
    cells: Path, encoder: Encoder, sink: LibrarySink
) -> None:
    whole = (cells / "EO" / "0.png").read_bytes()
    (cells / "EO" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (cells / "EO" / "empty.png").write_bytes(b"")
    (cells / "EO" / "text.jpg").write_text("not an image")
    (cells / "EO" / "gone.png").symlink_to(cells / "nowhere.png")

    report = run(cells, encoder, sink)

    reasons = {Path(failure.path).name: failure.reason for failure in report.failures}
    assert not report.ok
    assert (report.stored, report.failed, report.sources) == (6, 4, 10)
    assert reasons["cut.png"].startswith("cut.png is damaged or cut short")
    assert reasons["empty.png"] == "empty.png is empty"
    assert reasons["text.jpg"].startswith("text.jpg is not an image that can be read")
    assert reasons["gone.png"] == "No such file or directory"


def test_metadata_that_does_not_fit_is_reported_without_its_value(
    cells: Path, encoder: Encoder, sink: LibrarySink
) -> None:
    facts = Facts(label="EO", patient="Jane Doe " * 30)
    task = Task(path=cells / "EO" / "0.png", dataset="d", reader=Whole(), facts=facts)

    report = ingest([task], encoder, sink)

    assert report.failures[0].reason.startswith("patient: ")
    assert "Jane" not in report.to_json()


def test_a_reader_that_breaks_fails_its_own_file_alone(
    cells: Path, encoder: Encoder, sink: LibrarySink
) -> None:
    class Broken(Whole):
        def cut(self, source: Source, planned: Sequence[Planned]) -> Iterator[RGB]:
            raise KeyError("x")

    path = cells / "EO" / "0.png"
    tasks = [Task(path=path, dataset="d", reader=Broken()), *scan(cells).tasks]

    report = ingest(tasks, encoder, sink)

    assert [failure.reason for failure in report.failures] == ["KeyError: 'x'"]
    assert report.stored == 6


class Picky(colour.Colour):
    """The colour histogram, but a white image gives NaN."""

    def vectors(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        rows = np.array(super().vectors(images))
        rows[[bool((image == 255).all()) for image in images]] = np.nan
        return rows


def test_an_image_that_the_encoder_cannot_embed_is_reported(
    cells: Path, encoder: Encoder, sink: LibrarySink
) -> None:
    Image.new("RGB", (8, 8), "white").save(cells / "EO" / "white.png")

    report = run(cells, Encoder(encoder.card, Picky(encoder.card)), sink)

    (failure,) = report.failures
    assert failure.path.endswith("white.png")
    assert "NaN" in failure.reason
    assert (report.stored, report.sources) == (6, 7)


def test_an_encoder_that_fails_on_everything_stops_the_run(
    tmp_path: Path, encoder: Encoder, sink: LibrarySink
) -> None:
    (tmp_path / "white" / "EO").mkdir(parents=True)
    Image.new("RGB", (8, 8), "white").save(tmp_path / "white" / "EO" / "1.png")

    with pytest.raises(EncoderError, match="NaN"):
        run(tmp_path / "white", Encoder(encoder.card, Picky(encoder.card)), sink)


def test_another_encoder_is_refused_before_anything_is_read(
    encoder: Encoder, sink: LibrarySink
) -> None:
    other = Encoder(replace(encoder.card, resample="lanczos"), colour.Colour(encoder.card))

    with pytest.raises(WrongEncoder):
        ingest(iter([]), other, sink)


class Shards(LibrarySink):
    """A library that remembers how its shards were cut."""

    written: list[list[str]]

    def put(self, entries: Sequence[Entry]) -> None:
        self.written.append([f"{Path(str(e.path)).stem}" for e in entries])
        super().put(entries)


@pytest.fixture(name="shards")
def _shards(tmp_path: Path, encoder: Encoder) -> Iterator[Shards]:
    library = Library.open(tmp_path / "library")
    with Shards(library.create("cells", encoder.card)) as sink:
        sink.written = []
        yield sink


def test_many_images_share_a_shard_in_the_order_of_the_tasks(
    cells: Path, encoder: Encoder, shards: Shards
) -> None:
    run(cells, encoder, shards, shard_items=4, batch_size=3, workers=3)
    assert shards.written == [["0", "1", "2", "3"], ["4", "5"]]


def test_a_field_stays_whole_within_a_shard(
    tmp_path: Path, encoder: Encoder, shards: Shards
) -> None:
    tasks = []
    for name in ("a", "b", "c"):
        draw(tmp_path / f"{name}.png", ord(name), 64)
        marks = tuple(Mark(x, 10, 8, 8) for x in range(10, 50, 5))
        tasks.append(Task(path=tmp_path / f"{name}.png", dataset="d", reader=Marked(marks)))

    ingest(tasks, encoder, shards, how=How(shard_items=10, batch_size=3))

    assert shards.written == [["a"] * 8 + ["b"] * 8, ["c"] * 8]


def test_a_field_with_more_cells_than_a_part_is_cut_in_parts(
    tmp_path: Path, encoder: Encoder, shards: Shards
) -> None:
    draw(tmp_path / "a.png", 1, 64)
    marks = tuple(Mark(x, y, 8, 8) for x in range(4, 50, 3) for y in range(4, 54, 2))
    task = Task(path=tmp_path / "a.png", dataset="d", reader=Marked(marks))

    report = ingest([task], encoder, shards)

    assert len(marks) > 256
    assert (report.stored, report.sources) == (len(marks), 1)
    assert [len(shard) for shard in shards.written] == [len(marks)]


def test_a_source_may_have_no_items_at_all(
    tmp_path: Path, encoder: Encoder, sink: LibrarySink
) -> None:
    draw(tmp_path / "a.png", 1)
    report = ingest([Task(path=tmp_path / "a.png", dataset="d", reader=Marked(()))], encoder, sink)
    assert (report.ok, report.stored, report.sources) == (True, 0, 1)


def test_what_was_remarked_of_pictures_is_told_once_for_all_of_them(
    cells: Path, encoder: Encoder, sink: LibrarySink
) -> None:
    for at in range(3):
        deep = np.linspace(0, 4095, 400).reshape(20, 20).astype(np.uint16) - np.uint16(at)
        Image.fromarray(deep.clip(0, 4095)).save(cells / "EO" / f"deep{at}.png")

    report = run(cells, encoder, sink)

    (warning,) = report.warnings
    assert warning.startswith("3 pictures, the first ")
    assert warning.endswith("its 16-bit values were taken as 12-bit ones")


def test_padded_crops_are_counted_and_flagged(
    tmp_path: Path, encoder: Encoder, sink: LibrarySink
) -> None:
    draw(tmp_path / "a.png", 1, 64)
    marks = (Mark(0, 0, 20, 20), Mark(30, 30, 8, 8), Mark(3, 3, 0, 0, where="object 3"))

    report = ingest(
        [Task(path=tmp_path / "a.png", dataset="d", reader=Marked(marks))], encoder, sink
    )

    assert (report.stored, report.padded) == (2, 1)
    assert report.failures[0].where == "object 3"


def test_progress_ends_at_the_total(cells: Path, encoder: Encoder, sink: LibrarySink) -> None:
    told: list[Progress] = []

    run(cells, encoder, sink, progress=told.append)

    assert (told[-1].done, told[-1].total, told[-1].items) == (6, 6, 6)
    assert told[-1].rate > 0
    assert told[-1].eta == 0


def test_a_sink_that_breaks_stops_the_run_and_keeps_what_it_took(
    cells: Path, encoder: Encoder, shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = LibrarySink.put

    def put(self: LibrarySink, entries: Sequence[Entry]) -> None:
        if len(stored(shards)):
            raise StoreDown("the disk is full")
        keep(self, entries)

    with monkeypatch.context() as broken:
        broken.setattr(LibrarySink, "put", put)
        with pytest.raises(StoreDown, match="disk is full"):
            run(cells, encoder, shards, shard_items=2)

    assert len(stored(shards)) == 2
    assert run(cells, encoder, shards).stored == 4


def test_work_ahead_is_bounded_and_in_order() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        gate.wait(0 if number else 0.05)  # the first is the slowest
        return number * 10

    with ThreadPoolExecutor(4) as pool:
        results = in_order(pool, work, iter(range(100)), lambda _: 0.25)
        first = next(results)
        ahead = len(begun)
        rest = list(results)

    assert first == (0, 0)
    assert ahead <= 4
    assert [value for _, value in rest] == [number * 10 for number in range(1, 100)]


def test_a_thread_is_handed_several_small_things_and_one_large_thing() -> None:
    runs: list[tuple[int, ...]] = []

    class Pool(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **named: Any) -> Any:
            runs.append(tuple(args[1]))
            return super().submit(fn, *args, **named)

    sizes = [1, 1, 1, 5, 1, 1]
    with Pool(2) as pool:
        found = list(in_order(pool, str, range(6), lambda at: sizes[at] / 10, at_once=0.2))

    assert runs == [(0, 1), (2, 3), (4, 5)]
    assert found == [(at, str(at)) for at in range(6)]


def test_large_files_are_planned_one_by_one_and_small_ones_together(tmp_path: Path) -> None:
    for name, size in (("small", SMALL), ("large", SMALL + 1)):
        (tmp_path / name).write_bytes(bytes(size))
    shares = [
        plan_share(0.25, Task(path=tmp_path / name, dataset="cells", reader=Whole()))
        for name in ("small", "large", "gone")
    ]

    assert shares == [0.25 / PLANNED, 0.25, 0.25 / PLANNED]


def test_a_file_that_cannot_be_looked_at_does_not_stop_the_run(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)  # longer than a name may be
    row = States(None, Report(), lambda row: None).of(
        Task(path=path, dataset="cells", reader=Whole())
    )

    assert row.row.path == os.path.realpath(path)


def test_the_ledger_knows_a_file_by_where_its_links_lead(cells: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(cells / "EO")
    (cells / "EO" / "link.png").symlink_to(cells / "MO" / "3.png")
    states = States(None, Report(), lambda row: None)

    for named, real in (
        (tmp_path / "linked" / "0.png", cells / "EO" / "0.png"),
        (tmp_path / "linked" / "1.png", cells / "EO" / "1.png"),
        (cells / "EO" / "link.png", cells / "MO" / "3.png"),
    ):
        row = states.of(Task(path=named, dataset="cells", reader=Whole())).row
        assert row.path == os.path.realpath(real)


NURSERY = """
import os, sys
from pathlib import Path
import pyarrow.parquet, search.index.embedded
from encoder.registry import load
from ingest.layouts.known import scan
from ingest.pipeline.run import ingest
from ingest.pipeline.work import How
from ingest.pipeline.sink import LibrarySink
from search.library.library import Library

encoder = load("colour")
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        library = Library.open(Path(sys.argv[2]))
        with LibrarySink.open(library, "cells", encoder.card) as sink:
            how = How(batch_size=8, shard_items=8)
            ingest(scan(Path(sys.argv[1])).tasks, encoder, sink, how=how)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""
"""Starts an ingest in a fresh process for each line it reads; importing once saves seconds."""


def kill_after(shards: int, nursery: subprocess.Popen[str], library: Path, pause: float) -> bool:
    """Start an ingest and kill it once it has written so many shards; whether it was killed."""
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    folder = library / "collections" / "cells" / "versions"
    nursery.stdin.write("start\n")
    nursery.stdin.flush()
    child = int(nursery.stdout.readline())
    end = time.monotonic() + 60
    while len(list(folder.glob("*/shards/[0-9]*.parquet"))) < shards and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(pause)
    with suppress(ProcessLookupError):  # it had ended already
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(int(nursery.stdout.readline()))


def test_killed_at_random_moments_and_run_again_it_gives_the_same_ids_and_vectors(
    tmp_path: Path, encoder: Encoder, rng: np.random.Generator
) -> None:
    for seed in range(160):
        draw(tmp_path / "cells" / f"L{seed % 3}" / f"{seed}.png", seed, 12)
    with LibrarySink.open(Library.open(tmp_path / "calm"), "cells", encoder.card) as sink:
        run(tmp_path / "cells", encoder, sink, batch_size=8, shard_items=8)
        calm = stored(sink)

    command = [sys.executable, "-c", NURSERY, str(tmp_path / "cells"), str(tmp_path / "killed")]
    with subprocess.Popen(
        command, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as nursery:
        killed = [
            kill_after(shards, nursery, tmp_path / "killed", float(rng.uniform(0, 0.01)))
            for shards in sorted(int(n) for n in rng.integers(1, 15, 3))
        ]
    with LibrarySink.open(Library.open(tmp_path / "killed"), "cells", encoder.card) as sink:
        partial = len(stored(sink))
        report = run(tmp_path / "cells", encoder, sink, batch_size=8, shard_items=8)
        after = stored(sink)

    assert any(killed)
    assert partial > 0
    assert report.stored + report.unchanged == len(calm) == 160
    assert report.unchanged == partial
    assert after == calm


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_reported(cells: Path, encoder: Encoder, sink: LibrarySink) -> None:
    (cells / "EO" / "0.png").chmod(0)
    assert run(cells, encoder, sink).failures[0].reason == "Permission denied"


@pytest.mark.data
def test_the_two_boxes_of_zero_size_in_bccd_are_failures(
    data_dir: Path, encoder: Encoder, sink: LibrarySink
) -> None:
    found = scan(data_dir / "bccd")
    bad = {"BloodImage_00338.jpg", "BloodImage_00343.jpg"}
    tasks = [task for task in found.tasks if task.path.name in bad]

    report = ingest(tasks, encoder, sink)

    assert sorted(Path(failure.path).name for failure in report.failures) == sorted(bad)
    assert {failure.reason for failure in report.failures} == {"the box has zero size"}
    assert report.stored == sum(len(task.reader.marks) for task in tasks) - 2  # type: ignore[attr-defined]


def test_a_cell_of_known_scale_is_embedded_at_the_encoders_field_of_view(tmp_path: Path) -> None:
    card = replace(colour.CARD, id="colour-25", fields_um=FieldsUm(white=25.0, red=12.0))
    encoder, path = Encoder(card, colour.Colour(card)), tmp_path / "cell.png"
    draw(path, 1, side=400)
    image = Source(path, "d").image

    def vector(um: float | None) -> tuple[str, NDArray[np.float32]]:
        facts = Facts(um_per_px=um, um_per_px_origin=None if um is None else "manifest")
        ingest([Task(path=path, dataset="d", reader=Whole(), facts=facts)], encoder, sink)
        ((id, (item, row)),) = stored(sink).items()
        assert item.um_per_px == um
        return id, np.frombuffer(row, np.float32)

    with LibrarySink.open(Library.open(tmp_path / "library"), "cells", card) as sink:
        whole, known, other = vector(None), vector(0.1), vector(0.125)

    assert whole[0] == known[0] == other[0]
    for (_, row), side in ((whole, 400), (known, 250), (other, 200)):
        at = (400 - side) // 2
        seen = image[at : at + side, at : at + side]
        assert (row == encoder.embed([seen])[0]).all()
