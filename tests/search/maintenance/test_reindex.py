"""A new version is built beside the one that serves, and takes over only if it is fit to."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from live import REPOSITORY
from qdrant_client import QdrantClient
from versioned import draw, embedded_entries, fill, mixed

from encoder.contract import Encoder
from encoder.registry import load
from search.errors import StoreBusy, StoreError
from search.index.contract import IndexSettings, scroll_all
from search.library.indexes import OnServer
from search.library.library import Library
from search.library.sources import PlainImages
from search.library.versions import Superseded
from search.maintenance.checks import Limits
from search.maintenance.reindex import ReindexPlan, SourcesMissing, Stopped, reindex
from search.maintenance.rollback import list_versions, rollback
from search.schemas.items import Item

FREE = Limits(knn_margin=1.0, bias_margin=1.0)
"""For tests that are not about how well drawn cells are distinguished."""
PLAN = ReindexPlan(limits=FREE)


@pytest.fixture(name="library")
def _library(tmp_path: Path) -> Library:
    return fill(tmp_path)


def vectors(library: Library, name: str = "cells") -> dict[str, bytes]:
    with library.collection(name) as cells:
        return {s.item.id: s.vector.tobytes() for s in scroll_all(cells.store)}


def test_every_item_is_embedded_again_from_its_source_and_the_new_version_serves(
    tmp_path: Path, library: Library
) -> None:
    encoder = mixed(1)
    report = reindex(library, "cells", encoder, plan=PLAN)

    wanted = embedded_entries(draw(tmp_path / "drawn"), encoder)
    assert report.switched
    assert (report.items, report.embedded, report.missing) == (24, 24, ())
    with library.collection("cells") as cells:
        assert cells.card.fingerprint == encoder.card.fingerprint
        for entry in wanted:
            here = cells.rows.entry(entry.item.id)
            assert here is not None
            assert here.item == entry.item
            assert here.vector @ entry.vector == pytest.approx(1, abs=1e-6)
            assert (here.thumbnail, here.path) == (entry.thumbnail, entry.path)


def test_the_checks_are_kept_with_the_version(library: Library) -> None:
    reindex(library, "cells", mixed(1), plan=PLAN)

    old, new = list_versions(library, "cells")
    assert (old.served, new.served, old.previous) == (False, True, True)
    results = {check["name"]: check for check in new.report["gates"]}
    assert set(results) == {
        "finite", "collapse", "duplicates", "golden", "recall", "knn", "centre"
    }  # fmt: skip
    assert results["golden"]["figures"]["least_cosine"] >= 0.9999
    assert results["knn"]["figures"].keys() == {"weighted_f1", "parent"}


def test_a_failed_check_leaves_the_old_version_serving(library: Library) -> None:
    before = vectors(library)
    report = reindex(library, "cells", mixed(1, bias=1e3), plan=PLAN)

    assert not report.switched
    assert "collapse" in report.refused_by
    (collapse,) = [check for check in report.checks if check.name == "collapse"]
    assert collapse.figures["mean_cosine"] > collapse.limits["mean_cosine"]
    assert vectors(library) == before
    with pytest.raises(StoreError, match="did not pass its checks: collapse"):
        rollback(library, "cells", "2")


def test_an_overruled_check_is_remembered(library: Library) -> None:
    encoder = mixed(1, bias=1e3)
    assert not reindex(library, "cells", encoder, plan=PLAN).switched
    report = reindex(library, "cells", encoder, plan=ReindexPlan(limits=FREE, force=True))

    assert report.switched
    assert report.forced
    assert report.version == "2", "the refused version is taken up again, not built again"
    assert report.embedded == 0
    assert library.versions("cells").pointer().history[-1].why == "reindex, forced"
    assert list_versions(library, "cells")[-1].report["forced"] is True


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_a_source_that_is_gone_or_changed_stops_the_switch(
    tmp_path: Path, library: Library, harm: str
) -> None:
    before = vectors(library)
    field = tmp_path / "drawn" / "field-0-2.png"
    kept = field.read_bytes()
    if harm == "gone":
        field.unlink()
    else:
        field.write_bytes(kept + b"\0")

    with pytest.raises(SourcesMissing, match="6 of 24 items"):
        reindex(library, "cells", mixed(1), plan=PLAN)
    assert vectors(library) == before

    field.write_bytes(kept)  # the file comes back, and only what lacked is embedded
    report = reindex(library, "cells", mixed(1), plan=PLAN)
    assert (report.items, report.embedded, report.switched) == (24, 6, True)


def test_missing_items_are_counted_and_listed_where_they_may_be_left_out(
    tmp_path: Path, library: Library
) -> None:
    (tmp_path / "drawn" / "field-0-2.png").unlink()
    plan = ReindexPlan(limits=FREE, allow_missing=True)
    report = reindex(library, "cells", mixed(1), plan=plan)

    assert report.switched
    assert (report.items, len(report.missing)) == (18, 6)
    assert {one.path for one in report.missing} == {str(tmp_path / "drawn" / "field-0-2.png")}
    assert all("cannot be read" in one.why for one in report.missing)


def test_what_is_written_meanwhile_is_carried_over(tmp_path: Path, library: Library) -> None:
    late = embedded_entries(draw(tmp_path / "late", 2, seed=5), load("colour"))
    with library.collection("cells") as serving:
        items = [stored.item for stored in scroll_all(serving.store)]
        changed = items[0].model_copy(update={"label": "blast"})
        seen: list[int] = []

        def meanwhile(done: int, _total: int) -> None:
            if not seen:
                serving.add(late)
                serving.update([changed])
                serving.remove([items[1].id, items[2].id])
            seen.append(done)

        report = reindex(library, "cells", mixed(1), plan=PLAN, progress=meanwhile)
        with pytest.raises(Superseded, match="send it again"):
            serving.add(embedded_entries(draw(tmp_path / "later", 1, seed=6), load("colour")))
    with library.collection("cells") as cells:
        here = {stored.item.id: stored.item for stored in scroll_all(cells.store)}

    assert report.switched
    assert set(here) == {i.id for i in items[:1] + items[3:]} | {e.item.id for e in late}
    assert here[changed.id].label == "blast"
    assert report.removed == 2


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import search.maintenance.reindex as module
from search.library.library import Library
from versioned import mixed
module.PER_SHARD = 5

def die(done, total):
    if done >= 10:
        os.kill(os.getpid(), signal.SIGKILL)

module.reindex(Library.open(Path(sys.argv[1])), "cells", mixed(1), progress=die)
"""


def test_after_kill_9_the_same_call_goes_on_where_it_was(library: Library) -> None:
    before = vectors(library)
    here = str(REPOSITORY / "tests" / "support")
    command = [sys.executable, "-c", KILLED, str(library.folder), here]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert vectors(library) == before

    report = reindex(library, "cells", mixed(1), plan=PLAN)
    assert (report.version, report.items, report.embedded) == ("2", 24, 14)
    assert report.switched


def test_a_run_can_be_stopped_and_taken_up_again(library: Library) -> None:
    with pytest.raises(Stopped, match="24 of 24"):
        reindex(library, "cells", mixed(1), plan=PLAN, stop=lambda: True)
    assert reindex(library, "cells", mixed(1), plan=PLAN).embedded == 0


def test_two_runs_do_not_build_one_version(library: Library) -> None:
    def second(_done: int, _total: int) -> None:
        with pytest.raises(StoreBusy):
            reindex(library, "cells", mixed(1), plan=PLAN)

    assert reindex(library, "cells", mixed(1), plan=PLAN, progress=second).switched


def test_a_switch_under_the_run_stops_its_own(library: Library) -> None:
    reindex(library, "cells", mixed(1), plan=PLAN)

    def away(_done: int, _total: int) -> None:
        if library.versions("cells").pointer().version == "2":
            rollback(library, "cells")

    with pytest.raises(StoreError, match="switched from version 2 to 1"):
        reindex(library, "cells", mixed(2), plan=PLAN, progress=away)
    assert library.versions("cells").pointer().version == "1"


def test_other_settings_of_the_index_need_no_sources(tmp_path: Path, library: Library) -> None:
    before = vectors(library)
    for field in (tmp_path / "drawn").glob("*.png"):
        field.unlink()
    settings = IndexSettings(quantize="int8", vectors_on_disk=True)
    plan = ReindexPlan(index=settings, limits=FREE)
    report = reindex(library, "cells", load("colour"), plan=plan)

    assert report.switched
    assert (report.copied, report.embedded) == (24, 0)
    assert library.versions("cells").current().index == settings
    assert vectors(library) == before


def test_a_collection_that_has_grown_large_gets_more_links(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.index.contract.MANY_POINTS", 3)
    chosen = IndexSettings(m=24, ef_construct=200)

    grown = reindex(library, "cells", load("colour"))
    versions = library.versions("cells")
    assert versions.get(grown.version).index == IndexSettings(m=32, ef_construct=256)

    done = reindex(library, "cells", load("colour"), plan=ReindexPlan(index=chosen))
    again = reindex(library, "cells", load("colour"))
    assert versions.get(done.version).index == chosen
    assert versions.get(again.version).index == chosen, "what was chosen by hand stays"


def test_a_reader_of_slides_can_be_passed_in(tmp_path: Path, library: Library) -> None:
    plain, read = PlainImages(), []

    def reader(path: Path, item: Item, notes: Mapping[str, str]) -> np.ndarray:
        read.append(item.id)
        return plain(path, item, notes)

    reindex(library, "cells", mixed(1), plan=PLAN, read_pixels=reader)
    assert set(read) == set(vectors(library))


def test_no_more_pixels_are_read_ahead_than_memory_may_hold(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, embedded = mixed(1), []

    def embed(images: list[np.ndarray]) -> np.ndarray:
        embedded.append(len(images))
        return Encoder.embed(encoder, images)

    monkeypatch.setattr("search.maintenance.reindex.MOST_BYTES", 1)
    monkeypatch.setattr(encoder, "embed", embed)
    assert encoder.batch_size > 1

    assert reindex(library, "cells", encoder, plan=PLAN).embedded == 24
    assert embedded.count(1) == 24


@pytest.fixture(name="client")
def _client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local")
@pytest.mark.filterwarnings("ignore:Local mode performs exact .* search:UserWarning")
def test_on_a_server_the_alias_leads_to_the_new_version(
    tmp_path: Path, client: QdrantClient
) -> None:
    library = fill(tmp_path, stores=OnServer(client=client))

    def alias() -> dict[str, str]:
        return {one.alias_name: one.collection_name for one in client.get_aliases().aliases}

    assert alias() == {"cells": "cells@1"}
    reindex(library, "cells", mixed(1), plan=PLAN)
    assert alias() == {"cells": "cells@2"}
    assert client.count("cells").count == 24
    rollback(library, "cells")
    assert alias() == {"cells": "cells@1"}
