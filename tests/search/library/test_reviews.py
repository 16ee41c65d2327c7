"""Reviewed labels: added, never overwritten, and kept whatever becomes of the index."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from versioned import fill, mixed

from search.index.contract import scroll_all
from search.library.library import Library
from search.library.reviews import FILE, Reviews, ReviewsDamaged
from search.maintenance.checks import Limits
from search.maintenance.reindex import ReindexPlan, reindex
from search.maintenance.rollback import rollback
from search.maintenance.snapshots import restore, snapshot
from search.schemas.items import Item

PLAN = ReindexPlan(force=True, limits=Limits(knn_margin=1.0, bias_margin=1.0))


@pytest.fixture(name="library")
def _library(tmp_path: Path) -> Library:
    return fill(tmp_path)


@pytest.fixture(name="items")
def _items(library: Library) -> list[Item]:
    with library.collection("cells") as cells:
        return [one.item for one in scroll_all(cells.store)]


@pytest.fixture(name="reviews")
def _reviews(library: Library) -> Reviews:
    return Reviews(library.versions("cells"))


def test_every_reviewed_label_is_kept_beside_the_label_of_the_source(
    reviews: Reviews, items: list[Item]
) -> None:
    first = items[0]

    reviews.add([(first, "blast", None)], "key1", "Ada")
    reviews.add([(first, "monocyte", "folded nucleus")], "key2")
    reviews.add([(first, "promonocyte", None)], "key1", "Ada")
    reviewed = reviews.of([first.id])[first.id]

    assert [one.label for one in reviewed.history] == ["blast", "monocyte", "promonocyte"]
    assert {one.source_label for one in reviewed.history} == {first.label}
    assert [(one.caller, one.reviewer) for one in reviewed.history][:2] == [
        ("key1", "Ada"),
        ("key2", None),
    ]
    assert reviewed.label == "promonocyte"
    assert reviewed.disputed
    assert [one.label for one in reviewed.standing] == ["monocyte", "promonocyte"]


def test_the_same_label_by_the_same_reviewer_changes_nothing(
    reviews: Reviews, items: list[Item]
) -> None:
    reviewed = [(item, "blast", None) for item in items[:3]]

    assert reviews.add(reviewed, "key1") == 3
    before = reviews.path.read_bytes()
    assert reviews.add(reviewed, "key1") == 0
    assert reviews.path.read_bytes() == before
    assert reviews.add(reviewed, "key2") == 3


def test_a_reviewed_label_can_be_withdrawn_and_stays_in_the_history(
    reviews: Reviews, items: list[Item]
) -> None:
    reviews.add([(items[0], "blast", None)], "key1")
    reviews.add([(items[0], None, None)], "key1")
    reviewed = reviews.of([items[0].id])[items[0].id]

    assert reviewed.label is None
    assert len(reviewed.history) == 2
    assert reviews.add([(items[1], None, None)], "key1") == 0  # there was no label before


def test_reviews_outlive_a_reindex_a_rollback_and_a_lost_index(
    library: Library, reviews: Reviews, items: list[Item]
) -> None:
    reviews.add([(items[0], "blast", None)], "key1")

    done = reindex(library, "cells", mixed(1), plan=PLAN)
    assert done.switched
    assert Reviews(library.versions("cells")).of([items[0].id])[items[0].id].label == "blast"
    rollback(library, "cells")
    assert reviews.of([items[0].id])[items[0].id].label == "blast"
    folder = library.versions("cells").path("1")
    shutil.rmtree(folder / "index")
    (folder / "catalogue.sqlite").unlink()
    with library.collection("cells") as cells:
        (stored,) = cells.store.get([items[0].id])
    assert stored.item.label == items[0].label
    assert reviews.of([items[0].id])[items[0].id].label == "blast"


@pytest.mark.parametrize("name", ["snap", "snap.tar"])
def test_reviews_travel_with_a_snapshot(
    library: Library, reviews: Reviews, items: list[Item], tmp_path: Path, name: str
) -> None:
    reviews.add([(items[0], "blast", "seen twice")], "key1", "Ada")
    snapshot(library, "cells", tmp_path / name)

    other = Library.open(tmp_path / "other")
    restore(other, tmp_path / name)
    restore(library, tmp_path / name)  # beside what is there: no line twice

    assert Reviews(other.versions("cells")).all() == reviews.all()
    assert len(reviews.path.read_bytes().splitlines()) == 1


def test_a_line_that_a_power_cut_tore_is_left_out_and_written_over(
    reviews: Reviews, items: list[Item]
) -> None:
    reviews.add([(items[0], "blast", None)], "key1")
    with reviews.path.open("ab") as log:
        log.write(b'{"item": "torn')
    again = Reviews(reviews._versions)

    assert [one.label for one in again.all()] == ["blast"]
    again.add([(items[1], "monocyte", None)], "key1")
    assert len(again.path.read_bytes().splitlines()) == 2
    assert len(Reviews(reviews._versions).all()) == 2


def test_a_damaged_log_is_refused_with_its_line(reviews: Reviews, items: list[Item]) -> None:
    reviews.add([(items[0], "blast", None)], "key1")
    with reviews.path.open("ab") as log:
        log.write(b"nonsense\n")

    with pytest.raises(ReviewsDamaged, match=f"line 2 of .*{FILE}.* restore"):
        Reviews(reviews._versions).all()
