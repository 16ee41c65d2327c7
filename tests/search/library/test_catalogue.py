"""The catalogue knows where each item lies, and is made again from the shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from search.library.catalogue import Catalogue

A, B, C = (bytes([at]) * 16 for at in range(3))
FIRST, SECOND = "00000001-aa.parquet", "00000002-bb.parquet"


@pytest.fixture(name="catalogue")
def _catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    catalogue = Catalogue(tmp_path / "catalogue.sqlite")
    catalogue.put(FIRST, [(A, "a1"), (B, "b1")], [(A, b"hash"), (B, b"")])
    yield catalogue
    catalogue.close()


def test_the_later_shard_decides(catalogue: Catalogue) -> None:
    catalogue.put(SECOND, [(B, "b2"), (C, "c2")], [])

    assert catalogue.known([A, B, C, b"x" * 16]) == {A: "a1", B: "b2", C: "c2"}
    assert [catalogue.place(id) for id in (A, B, C)] == [(FIRST, 0), (SECOND, 0), (SECOND, 1)]
    assert catalogue.place(b"x" * 16) is None
    assert catalogue.shards() == {FIRST, SECOND}
    assert catalogue.places()[B] == ("b2", SECOND, 0)


def test_more_ids_than_one_query_takes(catalogue: Catalogue) -> None:
    many = [(at.to_bytes(16, "big"), str(at)) for at in range(2000)]
    catalogue.put(SECOND, many, [])
    assert catalogue.known([id for id, _ in many]) == dict(many)


def test_what_is_removed_is_gone_and_its_picture_too(catalogue: Catalogue) -> None:
    catalogue.remove(SECOND, [A])

    assert catalogue.known([A, B]) == {B: "b1"}
    assert (catalogue.picture(A), catalogue.picture(B)) == (None, b"")
    assert catalogue.shards() == {FIRST, SECOND}


def test_it_is_still_there_when_opened_again(tmp_path: Path, catalogue: Catalogue) -> None:
    catalogue.close()
    catalogue.close()
    again = Catalogue(tmp_path / "catalogue.sqlite")
    assert again.picture(A) == b"hash"
    again.clear()
    assert (again.places(), again.shards(), again.picture(A)) == ({}, set(), None)
    again.close()
