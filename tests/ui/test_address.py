"""A search as a question and as an address."""

from __future__ import annotations

import pytest

from search.schemas.filters import Filter
from search.schemas.items import Box
from ui.address import BadAddress, Searching

ID = "3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11"
OTHER = "8a4d3b52-1f6e-5b1c-8d7a-6b1d0c2e9f45"
WHOLE = Searching(
    collection="cells",
    upload="0" * 32,
    crop=Box(x=-3, y=4, w=50, h=60),
    k=20,
    grouped=False,
    own=True,
    um_per_px=0.2,
    where=Filter(label=("a b", "c,d"), site=("Å",)),
    like=(ID,),
    unlike=(OTHER,),
)


@pytest.mark.parametrize("search", [Searching(), WHOLE, Searching(item=ID, grouped=True)])
def test_an_address_names_the_search_that_made_it(search: Searching) -> None:
    assert Searching.of_address(search.address()) == search


def test_a_scale_that_was_estimated_and_a_cell_that_was_found_go_into_the_question() -> None:
    found = WHOLE.model_copy(update={"um_estimated": True, "um_spread": 0.01, "cell": "red"})
    about = found.question().about

    assert (about.um_per_px, about.um_per_px_origin, about.um_per_px_spread) == (
        0.2, "estimate", 0.01,
    )  # fmt: skip
    assert about.cell == "red"
    assert found.model_copy(update={"crop": None}).question().about.cell is None
    assert WHOLE.question().about.um_per_px_origin is None
    assert Searching.of_address(found.address()) == found


def test_the_patient_never_becomes_part_of_an_address() -> None:
    search = Searching(item=ID, patient="P-17")

    assert "P-17" not in str(search.address())
    assert Searching.of_address({"item": ID, "patient": "P-17"}).patient is None


def test_what_is_not_of_a_search_is_left_alone() -> None:
    assert Searching.of_address({"utm_source": "mail"}) == Searching()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("item", "x"),
        ("k", "0"),
        ("k", "5000"),
        ("crop", "1,2,3"),
        ("crop", "1,2,0,0"),
        ("where", '{"colour":["red"]}'),
        ("where", "[]"),
        ("grouped", "perhaps"),
        ("like", "x,y"),
        ("um_per_px", "-1"),
        ("um_per_px", "nan"),
    ],
)
def test_an_address_that_was_cut_or_changed_is_refused(name: str, value: str) -> None:
    with pytest.raises(BadAddress, match=name):
        Searching.of_address({name: value})


def test_an_example_is_wanted_or_unwanted_but_not_both() -> None:
    search = Searching(item=ID).toggled("like", OTHER)

    assert search.like == (OTHER,)
    assert search.toggled("unlike", OTHER).like == ()
    assert search.toggled("unlike", OTHER).unlike == (OTHER,)
    assert search.toggled("like", OTHER).like == ()


def test_the_vote_is_of_the_plain_query_and_the_gallery_of_the_refined_one() -> None:
    assert WHOLE.question().model_fields_set.isdisjoint({"like", "unlike"})
    assert WHOLE.shown().like == (ID,)
    assert WHOLE.shown().strategy == "best_score"
    assert Searching(item=ID).shown().group_by == "group"


def test_the_own_patient_is_left_out_by_default() -> None:
    assert "patient" in Searching(item=ID).question().exclude
    assert set(WHOLE.question().exclude) == {"item", "duplicate"}
