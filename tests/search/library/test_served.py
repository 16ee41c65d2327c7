"""The service follows the pointer; what is under way finishes where it began."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest
from versioned import fill, mixed

from search.disk.closing import Closing
from search.library.collection import Collection
from search.library.library import Library
from search.library.served import OpenCollections
from search.library.versions import StoreBusy
from search.maintenance.checks import Limits
from search.maintenance.reindex import ReindexPlan, reindex
from search.maintenance.rollback import prune, rollback


class Beside(Closing):
    """What a feature keeps open beside a collection."""

    closed = False

    def close(self) -> None:
        """Note it."""
        self.closed = True


@pytest.fixture(name="library")
def _library(tmp_path: Path) -> Library:
    library = fill(tmp_path)
    plan = ReindexPlan(limits=Limits(knn_margin=1.0, bias_margin=1.0))
    reindex(library, "cells", mixed(1), plan=plan)
    rollback(library, "cells")
    return library


def until(collections: OpenCollections, version: str) -> Collection:
    end = time.monotonic() + 30
    while True:
        collection = collections.get("cells")
        assert collection is not None
        if collection.version.id == version:
            return collection
        assert time.monotonic() < end, collections.trouble
        time.sleep(0.01)


def test_a_switch_by_anyone_is_followed(library: Library) -> None:
    collections = OpenCollections(library)
    collections["cells"] = library.collection("cells")
    rollback(Library(library.folder), "cells")

    assert until(collections, "2").card.fingerprint == mixed(1).card.fingerprint
    collections.clear()


def test_a_question_under_way_keeps_its_version_which_closes_after_it(library: Library) -> None:
    collections = OpenCollections(library)
    collections["cells"] = library.collection("cells")
    answering = collections.get("cells")
    assert answering is not None
    rollback(library, "cells")
    until(collections, "2")

    assert answering.version.id == "1"
    assert answering.store.count() == 24
    with pytest.raises(StoreBusy):
        library.version("cells", "1")
    store = answering.store
    beside = answering.derived["beside"] = Beside()
    assert not beside.closed
    del answering
    gc.collect()
    assert beside.closed
    assert store.count() == 24, "a call that holds only the store is under way too"
    del store
    gc.collect()
    library.version("cells", "1").close()
    collections.clear()


def test_back_and_forth_uses_the_handle_that_is_still_open(library: Library) -> None:
    collections = OpenCollections(library)
    collections["cells"] = library.collection("cells")
    first = collections.get("cells")
    rollback(library, "cells")
    until(collections, "2")
    rollback(library, "cells")

    assert until(collections, "1") is first
    collections.clear()


def test_whoever_switches_can_wait_for_it(library: Library) -> None:
    collections = OpenCollections(library)
    collections["cells"] = library.collection("cells")
    rollback(library, "cells")

    assert collections.follow("cells").version.id == "2"
    collections.clear()


def test_a_version_that_cannot_be_opened_leaves_the_old_one_answering(library: Library) -> None:
    prepared: list[str] = []

    def prepare(collection: Collection) -> None:
        prepared.append(collection.version.id)
        raise RuntimeError("no such weights")

    collections = OpenCollections(library, prepare)
    collections["cells"] = library.collection("cells")
    rollback(library, "cells")
    end = time.monotonic() + 30
    while not collections.trouble:
        collection = collections.get("cells")
        assert collection is not None
        assert collection.version.id == "1"
        assert time.monotonic() < end
        time.sleep(0.01)

    assert collections.trouble == {"cells": "RuntimeError: no such weights"}
    assert prepared[0] == "2"
    collections.clear()


def test_a_version_that_still_answers_is_not_pruned(library: Library) -> None:
    collections = OpenCollections(library)
    collections["cells"] = library.collection("cells")
    answering = collections.get("cells")
    rollback(library, "cells")
    until(collections, "2")

    with pytest.raises(StoreBusy):
        prune(library, "cells", keep=0)
    assert answering is not None
    assert answering.store.count() == 24
    del answering
    gc.collect()
    assert prune(library, "cells", keep=0) == ["1"]
    collections.clear()
