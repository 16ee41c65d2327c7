"""A collection is one name for several versions, and one small file says which of them serves."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from shutil import rmtree

import pytest
from versioned import draw, embedded_entries, fill

from encoder.registry import load
from search.errors import StoreError
from search.index.contract import scroll_all
from search.library.library import Library
from search.library.versions import PIECES, NoSuchVersion, Pointer, Superseded, Version, Versions


def content(library: Library) -> dict[str, bytes]:
    with library.collection("cells") as cells:
        return {s.item.id: s.vector.tobytes() for s in scroll_all(cells.store)}


def as_format_1(library: Library) -> Path:
    """Put a library back to how it was laid out before there were versions."""
    folder = library.folder / "collections" / "cells"
    version = Version.read(folder / "versions" / "1" / "collection.json")
    for piece in PIECES:
        if (folder / "versions" / "1" / piece).exists():
            (folder / "versions" / "1" / piece).rename(folder / piece)
    facts = {
        "format": 1,
        "name": "cells",
        "encoder": "colour",
        "card": json.loads(version.card.to_json()),
    }
    (folder / "collection.json").write_text(json.dumps(facts))
    rmtree(folder / "versions")
    (folder / "current.json").unlink()
    return folder


def test_a_library_of_before_the_versions_opens_as_it_was(tmp_path: Path) -> None:
    library = fill(tmp_path)
    before = content(library)
    folder = as_format_1(library)

    assert library.names() == ["cells"]
    assert library.card("cells") == load("colour").card
    assert library.reference("cells") == "colour"
    assert content(library) == before
    assert sorted(path.name for path in folder.glob("versions/*")) == ["1"]
    assert not (folder / "collection.json").exists()


@pytest.mark.parametrize("moved", range(4))
def test_a_move_to_versions_that_was_cut_off_is_finished(tmp_path: Path, moved: int) -> None:
    library = fill(tmp_path)
    before = content(library)
    folder = as_format_1(library)
    there = folder / "versions" / "1"
    there.mkdir(parents=True)
    if moved > 0:
        turn = {"version": "1", "at": "", "why": "created"}
        (folder / "current.json").write_text(json.dumps({"version": "1", "history": [turn]}))
    for piece in PIECES[: moved - 1 if moved else 0]:
        (folder / piece).rename(there / piece)

    assert library.card("cells") == load("colour").card
    assert content(library) == before
    assert content(library) == before, "once more, now that nothing is left to do"


def test_a_write_to_a_version_that_no_longer_serves_is_refused(tmp_path: Path) -> None:
    library = fill(tmp_path)
    versions = library.versions("cells")
    with library.collection("cells") as cells:
        versions.begin(cells.card, "colour", state="ready")
        with versions.writing():
            versions.point("2", "switch")
        with pytest.raises(Superseded, match="from version 1 to 2"):
            cells.remove([next(iter(scroll_all(cells.store))).item.id])
        with pytest.raises(Superseded):
            cells.add(embedded_entries(draw(tmp_path / "more", 1, seed=9), load("colour")))
        assert cells.store.count() == 24


def test_a_switch_waits_for_a_write_and_a_write_for_a_switch(tmp_path: Path) -> None:
    versions = fill(tmp_path).versions("cells")
    order: list[str] = []

    def write() -> None:
        with versions.writing():
            order.append("second")

    with versions.writing():
        thread = threading.Thread(target=write)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_the_pointer_remembers_who_served_before() -> None:
    pointer = Pointer("1", ()).turned("1", "created").turned("2", "reindex")
    assert pointer.previous == "1"
    assert pointer.turned("1", "rollback").previous == "2"
    assert Pointer("1", ()).turned("1", "created").previous is None


def test_a_damaged_pointer_is_named_and_not_guessed(tmp_path: Path) -> None:
    library = fill(tmp_path)
    (library.folder / "collections" / "cells" / "current.json").write_text("{")

    with pytest.raises(StoreError, match=r"current\.json is damaged"):
        library.collection("cells")


def test_a_version_of_a_newer_format_is_not_opened(tmp_path: Path) -> None:
    library = fill(tmp_path)
    path = library.versions("cells").path("1") / "collection.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))

    with pytest.raises(StoreError, match="update it"):
        library.card("cells")


def test_a_version_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    versions = fill(tmp_path).versions("cells")
    for id in ("7", "../1", ""):
        with pytest.raises(NoSuchVersion, match="there are 1"):
            versions.get(id)


def test_what_is_known_of_a_version_survives_the_disk(tmp_path: Path) -> None:
    versions = Versions(tmp_path / "cells")
    made = versions.begin(load("colour").card, "/models/mine", parent="4")
    finished = versions.finish(made.id, "refused", {"items": 3})

    assert versions.get(made.id) == finished
    assert (finished.state, finished.parent, finished.report) == ("refused", "4", {"items": 3})


def test_a_removal_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    versions = fill(tmp_path).versions("cells")
    made = versions.begin(load("colour").card, "colour")
    versions.path(made.id).rename(versions.folder / "versions" / f"gone-{made.id}")

    assert versions.ids() == ["1"]
    versions.finish_interrupted()
    assert [path.name for path in versions.folder.glob("versions/*")] == ["1"]
