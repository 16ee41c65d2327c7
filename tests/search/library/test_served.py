"""The service follows the pointer; what is under way finishes where it began."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest
from versioned import fill, mixed

from search.library.collection import Collection
from search.library.library import Library
from search.library.served import Holding
from search.library.versions import StoreBusy
from search.maintenance.checks import Limits
from search.maintenance.reindex import ReindexPlan, reindex
from search.maintenance.rollback import prune, rollback


@pytest.fixture(name="library")
def _library(tmp_path: Path) -> Library:
    library = fill(tmp_path)
    plan = ReindexPlan(limits=Limits(knn_margin=1.0, bias_margin=1.0))
    reindex(library, "cells", mixed(1), plan=plan)
    rollback(library, "cells")
    return library


def until(holding: Holding, version: str) -> Collection:
    end = time.monotonic() + 30
    while True:
        held = holding.get("cells")
        assert held is not None
        if held.version.id == version:
            return held
        assert time.monotonic() < end, holding.trouble
        time.sleep(0.01)


def test_a_switch_by_anyone_is_followed(library: Library) -> None:
    holding = Holding(library)
    holding["cells"] = library.collection("cells")
    rollback(Library(library.folder), "cells")

    assert until(holding, "2").card.fingerprint == mixed(1).card.fingerprint
    holding.clear()


def test_a_question_under_way_keeps_its_version_which_closes_after_it(library: Library) -> None:
    holding = Holding(library)
    holding["cells"] = library.collection("cells")
    asking = holding.get("cells")
    assert asking is not None
    rollback(library, "cells")
    until(holding, "2")

    assert asking.version.id == "1"
    assert asking.store.count() == 24
    with pytest.raises(StoreBusy):
        library.version("cells", "1")
    store = asking.store
    del asking
    gc.collect()
    assert store.count() == 24, "a call that holds only the store is under way too"
    del store
    gc.collect()
    library.version("cells", "1").close()
    holding.clear()


def test_back_and_forth_uses_the_handle_that_is_still_open(library: Library) -> None:
    holding = Holding(library)
    holding["cells"] = library.collection("cells")
    first = holding.get("cells")
    rollback(library, "cells")
    until(holding, "2")
    rollback(library, "cells")

    assert until(holding, "1") is first
    holding.clear()


def test_whoever_switches_can_wait_for_it(library: Library) -> None:
    holding = Holding(library)
    holding["cells"] = library.collection("cells")
    rollback(library, "cells")

    assert holding.follow("cells").version.id == "2"
    holding.clear()


def test_a_version_that_cannot_be_opened_leaves_the_old_one_answering(library: Library) -> None:
    prepared: list[str] = []

    def prepare(collection: Collection) -> None:
        prepared.append(collection.version.id)
        raise RuntimeError("no such weights")

    holding = Holding(library, prepare)
    holding["cells"] = library.collection("cells")
    rollback(library, "cells")
    end = time.monotonic() + 30
    while not holding.trouble:
        held = holding.get("cells")
        assert held is not None
        assert held.version.id == "1"
        assert time.monotonic() < end
        time.sleep(0.01)

    assert holding.trouble == {"cells": "RuntimeError: no such weights"}
    assert prepared[0] == "2"
    holding.clear()


def test_a_version_that_still_answers_is_not_pruned(library: Library) -> None:
    holding = Holding(library)
    holding["cells"] = library.collection("cells")
    asking = holding.get("cells")
    rollback(library, "cells")
    until(holding, "2")

    with pytest.raises(StoreBusy):
        prune(library, "cells", keep=0)
    assert asking is not None
    assert asking.store.count() == 24
    del asking
    gc.collect()
    assert prune(library, "cells", keep=0) == ["1"]
    holding.clear()
