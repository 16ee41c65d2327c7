"""Versions are listed, rolled back and pruned, and no removal is ever undone by it."""

from __future__ import annotations

from pathlib import Path

import pytest
from versioned import draw, embedded_entries, fill, mixed

from search.errors import StoreError
from search.index.contract import scroll_all
from search.library.library import Library
from search.library.versions import NoSuchVersion
from search.maintenance.checks import Limits
from search.maintenance.reindex import ReindexPlan, reindex
from search.maintenance.rollback import list_versions, prune, rollback

PLAN = ReindexPlan(limits=Limits(knn_margin=1.0, bias_margin=1.0))


@pytest.fixture(name="library")
def _library(tmp_path: Path) -> Library:
    library = fill(tmp_path)
    reindex(library, "cells", mixed(1), plan=PLAN)
    return library


def labels(library: Library) -> dict[str, str | None]:
    with library.collection("cells") as cells:
        return {s.item.id: s.item.label for s in scroll_all(cells.store)}


def test_one_call_brings_the_version_before_back_and_another_undoes_it(library: Library) -> None:
    assert library.card("cells").id == "mixed-1"
    back = rollback(library, "cells")
    assert (back.left, back.served, back.lacking) == ("2", "1", ())
    assert library.card("cells").id == "colour"
    assert rollback(library, "cells").served == "2"


def test_removals_and_metadata_go_along_and_newer_items_are_named(
    tmp_path: Path, library: Library
) -> None:
    late = embedded_entries(draw(tmp_path / "late", 1, seed=3), mixed(1))
    with library.collection("cells") as cells:
        first, second = sorted(labels_of(cells.store))[:2]
        item = cells.store.get([first])[0].item
        cells.update([item.model_copy(update={"label": "blast"})])
        assert cells.remove([second, late[0].item.id]) == 1
        cells.add(late)
    back = rollback(library, "cells")

    assert (back.revised, back.removed) == (1, 1)
    assert set(back.lacking) == {entry.item.id for entry in late}
    here = labels(library)
    assert here[first] == "blast"
    assert second not in here
    assert len(here) == 23


def labels_of(store: object) -> list[str]:
    return [s.item.id for s in scroll_all(store)]  # type: ignore[arg-type]


def test_what_was_removed_stays_removed_over_any_number_of_versions(library: Library) -> None:
    with library.collection("cells") as cells:
        gone = min(labels_of(cells.store))
        cells.remove([gone])
    reindex(library, "cells", mixed(2), plan=PLAN)  # never had it
    assert rollback(library, "cells", "1").removed == 1
    assert gone not in labels(library)


def test_what_was_left_out_of_a_version_is_not_removed_from_its_parent(
    tmp_path: Path, library: Library
) -> None:
    (tmp_path / "drawn" / "field-0-0.png").unlink()
    reindex(library, "cells", mixed(2), plan=ReindexPlan(limits=PLAN.limits, allow_missing=True))
    assert len(labels(library)) == 18
    assert rollback(library, "cells").removed == 0
    assert len(labels(library)) == 24


def test_there_is_nothing_before_the_first(tmp_path: Path) -> None:
    library = fill(tmp_path / "other")
    with pytest.raises(NoSuchVersion, match="before this one"):
        rollback(library, "cells")
    with pytest.raises(StoreError, match="is the one that answers"):
        rollback(library, "cells", "1")


def test_a_version_that_is_not_whole_does_not_serve(library: Library) -> None:
    versions = library.versions("cells")
    versions.begin(mixed(7).card, "mixed-7")
    with pytest.raises(StoreError, match="not whole"):
        rollback(library, "cells", "3", force=True)


def test_the_list_gives_items_and_bytes_of_each(library: Library) -> None:
    first, second = list_versions(library, "cells")

    assert (first.id, first.encoder, first.items, first.state) == ("1", "colour", 24, "ready")
    assert (second.id, second.parent, second.items, second.served) == ("2", "1", 24, True)
    assert first.bytes > 24 * 432 * 4
    assert second.fingerprint == mixed(1).card.fingerprint


def test_pruning_keeps_what_serves_and_what_served_last(library: Library) -> None:
    reindex(library, "cells", mixed(2), plan=PLAN)
    reindex(library, "cells", mixed(3), plan=PLAN)
    library.versions("cells").begin(mixed(4).card, "mixed-4")
    rollback(library, "cells", "2")  # the order of service is 2, 4, 3, 1

    assert prune(library, "cells", keep=1) == ["1", "3"]
    assert [one.id for one in list_versions(library, "cells")] == ["2", "4", "5"]
    assert prune(library, "cells", keep=1, unfinished=True) == ["5"]
    assert prune(library, "cells", keep=0) == ["4"]
    assert len(labels(library)) == 24
    with pytest.raises(ValueError, match="at least 0"):
        prune(library, "cells", keep=-1)
