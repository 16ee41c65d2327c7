"""The list of finders, and what it says of those that are not there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ingest.smears.cells import FinderError
from ingest.smears.finders import DEFAULT, FINDERS, finder


def test_the_default_needs_no_weights() -> None:
    assert finder().id == DEFAULT


def test_an_unknown_finder_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(FinderError, match=r"unknown finder 'clasical'\. Did you mean 'classical'"):
        finder("clasical")


def test_the_default_refuses_weights_that_it_would_not_use(tmp_path: Path) -> None:
    with pytest.raises(FinderError, match="has no weights"):
        finder("classical", tmp_path / "weights.pt")


def test_every_finder_is_named_as_it_is_listed() -> None:
    from ingest.smears.cellpose import Cellpose
    from ingest.smears.instanseg import InstanSeg

    assert [*FINDERS] == ["classical", Cellpose.id, InstanSeg.id]


@pytest.mark.parametrize("id", ["cellpose", "instanseg"])
def test_an_optional_finder_that_is_not_installed_says_what_to_do(id: str) -> None:
    if importlib.util.find_spec(id) is not None:
        with pytest.raises(FinderError, match="needs a weights file"):
            finder(id)
        return
    with pytest.raises(FinderError, match=f"{id!r} needs the package .* not installed; install"):
        finder(id)
