"""A snapshot comes back point by point, or is refused with the file that is wrong."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from versioned import fill, mixed

from search.errors import NoSuchCollection, StoreError
from search.index.contract import scroll_all
from search.library.library import Library
from search.library.shards import ShardError
from search.library.versions import Versions
from search.maintenance.checks import Limits
from search.maintenance.reconcile import reconcile
from search.maintenance.reindex import ReindexPlan, reindex
from search.maintenance.rollback import rollback
from search.maintenance.snapshots import UNPACKED, SnapshotError, restore, snapshot
from search.service import Service
from search.settings import Settings


def content(library: Library, name: str = "cells") -> dict[str, object]:
    with library.collection(name) as cells:
        return {
            stored.item.id: (
                stored.item,
                stored.vector.tobytes(),
                cells.rows.thumbnail(stored.item.id),
            )
            for stored in scroll_all(cells.store)
        }


@pytest.mark.parametrize("out", ["snap.tar", "snap"])
def test_what_was_saved_comes_back_elsewhere(tmp_path: Path, out: str) -> None:
    library = fill(tmp_path)
    with library.collection("cells") as cells:
        cells.remove([min(content_ids(cells))])
        (cells.folder / "calibration.json").write_text("{}")
    saved = snapshot(library, "cells", tmp_path / out)
    other = Library.open(tmp_path / "other")
    back = restore(other, tmp_path / out)

    assert back.served
    assert (back.points, back.point_hash) == (23, saved.point_hash)
    assert content(other) == content(library)
    assert other.reference("cells") == "colour"
    with other.collection("cells") as cells:
        assert (cells.folder / "calibration.json").read_text() == "{}"
        assert reconcile(cells).equal
    assert not list(tmp_path.glob(".*")), "nothing is left beside it"


def content_ids(cells: object) -> list[str]:
    return [s.item.id for s in scroll_all(cells.store)]  # type: ignore[attr-defined]


def test_it_can_be_taken_while_the_collection_is_open(tmp_path: Path) -> None:
    library = fill(tmp_path)
    with library.collection("cells"):
        assert snapshot(Library(library.folder), "cells", tmp_path / "snap").points == 24


def test_beside_a_collection_it_becomes_a_version_that_waits(tmp_path: Path) -> None:
    library = fill(tmp_path)
    before = content(library)
    snapshot(library, "cells", tmp_path / "snap.tar")
    plan = ReindexPlan(limits=Limits(knn_margin=1, bias_margin=1))
    reindex(library, "cells", mixed(1), plan=plan)
    back = restore(library, tmp_path / "snap.tar")

    assert (back.version, back.served) == ("3", False)
    assert library.card("cells").id == "mixed-1"
    rollback(library, "cells", "3")
    assert content(library) == before
    copy = restore(library, tmp_path / "snap.tar", "copy")
    assert copy.served
    assert content(library, "copy") == before


@pytest.mark.parametrize("harm", ["flipped", "gone", "more", "cut off", "edited list"])
def test_a_snapshot_that_is_not_what_was_written_is_refused(tmp_path: Path, harm: str) -> None:
    library = fill(tmp_path)
    snapshot(library, "cells", tmp_path / "snap")
    shard = next((tmp_path / "snap" / "shards").iterdir())
    listed = tmp_path / "snap" / "snapshot.json"
    if harm == "flipped":
        whole = shard.read_bytes()
        shard.write_bytes(whole[:99] + bytes([whole[99] ^ 1]) + whole[100:])
    elif harm == "gone":
        shard.unlink()
    elif harm == "more":
        (tmp_path / "snap" / "shards" / "00000009-ab.parquet").write_bytes(b"x")
    elif harm == "cut off":
        listed.unlink()
    else:
        facts = json.loads(listed.read_text()) | {"point_hash": "0" * 64}
        listed.write_text(json.dumps(facts))
    other = Library.open(tmp_path / "other")

    with pytest.raises(SnapshotError):
        restore(other, tmp_path / "snap")
    assert other.names() == []


@pytest.mark.parametrize("name", ["../out.json", "/abs.json", "a/b/c.json"])
def test_a_tar_that_reaches_outside_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 2
        tar.addfile(member, io.BytesIO(b"{}"))

    with pytest.raises(SnapshotError, match="does not belong"):
        restore(Library.open(tmp_path / "other"), path)
    assert not (tmp_path / "out.json").exists()


def test_what_is_no_snapshot_is_refused(tmp_path: Path) -> None:
    library = Library.open(tmp_path / "library")
    (tmp_path / "x.tar").write_bytes(b"nothing of the sort")
    for path in (tmp_path / "x.tar", tmp_path / "gone", tmp_path):
        with pytest.raises(SnapshotError):
            restore(library, path)
    with pytest.raises(NoSuchCollection):
        snapshot(library, "cells", tmp_path / "snap")


def test_nothing_is_overwritten_and_nothing_damaged_is_saved(tmp_path: Path) -> None:
    library = fill(tmp_path)
    (tmp_path / "snap").mkdir()
    with pytest.raises(StoreError, match="exists"):
        snapshot(library, "cells", tmp_path / "snap")
    shard = next((library.versions("cells").path("1") / "shards").iterdir())
    whole = shard.read_bytes()
    shard.write_bytes(whole[:300] + b"\0" + whole[301:])
    with pytest.raises(ShardError, match="not what was written"):
        snapshot(library, "cells", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def killed_while(step: str, work: Callable[[], object], patch: pytest.MonkeyPatch) -> None:
    """Do some work in a process that is killed when it comes to a step."""
    pid = os.fork()
    if pid == 0:
        patch.setattr(step, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        work()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("step", ["shutil.copyfile", "search.maintenance.snapshots.point_hash"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_restore_that_was_killed_leaves_nothing_once_the_service_starts_or_it_is_repeated(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = fill(tmp_path)
    source = tmp_path / "snap.tar"
    snapshot(library, "cells", source)
    for name in ("cells", "back"):
        killed_while(step, partial(restore, library, source, name), monkeypatch)
    versions = [Versions(library.folder / "collections" / name) for name in ("cells", "back")]
    left = [one.ids() for one in versions]
    Service.open(Settings(library=library.folder)).close()
    swept = [one.ids() for one in versions]
    back = restore(library, source, "back")

    assert (left, swept) == ([["1", "2"], ["1"]], [["1"], []])
    assert back.points == 24
    assert not list(tmp_path.glob(f"{UNPACKED}*"))


def test_a_restore_that_runs_is_not_swept_from_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = fill(tmp_path)
    snapshot(library, "cells", tmp_path / "snap.tar")
    copy = shutil.copyfile

    def beside(*given: Path) -> None:
        Service.open(Settings(library=library.folder)).close()
        copy(*given)

    monkeypatch.setattr(shutil, "copyfile", beside)
    assert restore(library, tmp_path / "snap.tar", "back").points == 24
