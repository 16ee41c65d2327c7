"""Items: ids that never change, filters against plain statements, and records that are checked."""

from __future__ import annotations

from datetime import date

import pytest
from pydantic import ValidationError

from search.schemas.answers import Hit
from search.schemas.filters import Filter, days
from search.schemas.items import KEYWORDS, RANGES, Box, Item, item_id, source_id

SOURCE = "2cf24dba5fb0a30e26e83b2ac5b9e29e"


def make_item(**facts: object) -> Item:
    return Item.model_validate(
        {"id": item_id("pbc", SOURCE), "dataset": "pbc", "source": SOURCE} | facts
    )


def test_a_source_is_named_by_its_bytes() -> None:
    assert source_id(b"hello") == SOURCE


def test_item_ids_never_change() -> None:
    """Libraries made before have these ids: a change here would store every item twice."""
    assert item_id("pbc", SOURCE) == "defe9b0a-77ef-5bcd-aa02-3e4a4fefffb7"
    assert (
        item_id("pbc", SOURCE, Box(x=-1, y=2, w=30, h=40)) == "dcde6c5b-9b3e-583c-b64c-3c676189783a"
    )


def test_an_item_is_its_dataset_source_kind_and_place() -> None:
    box = Box(x=1, y=2, w=3, h=4)
    ids = {
        item_id("pbc", SOURCE),
        item_id("bccd", SOURCE),
        item_id("pbc", source_id(b"other")),
        item_id("pbc", SOURCE, box),
        item_id("pbc", SOURCE, Box(x=1, y=2, w=3, h=5)),
        item_id("pbc", SOURCE, box, "tile"),
    }

    assert len(ids) == 6


def test_days_are_counted_from_1970() -> None:
    assert [days(date(1970, 1, 1)), days(date(1969, 12, 31)), days(date(2026, 11, 21))] == [
        0,
        -1,
        20778,
    ]


def test_every_indexed_field_is_a_field_of_an_item_and_can_be_filtered() -> None:
    assert set(KEYWORDS) | set(RANGES) <= set(Item.model_fields)
    assert set(KEYWORDS) <= set(Filter.model_fields)


@pytest.mark.parametrize(
    "facts",
    [
        {"um_per_px": 0.0},
        {"um_per_px": float("nan")},
        {"um_per_px": float("inf")},
        {"label": ""},
        {"label": "x" * 201},
        {"kind": "organ"},
        {"colour": "red"},
        {"bbox": {"x": 0, "y": 0, "w": 0, "h": 1}},
    ],
)
def test_an_item_that_contradicts_itself_is_refused(facts: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        make_item(**facts)


def test_records_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_item().label = "other"


@pytest.mark.parametrize("score", [1.0001, -1.0001, float("nan")])
def test_a_score_is_a_cosine(score: float) -> None:
    with pytest.raises(ValidationError):
        Hit(item=make_item(), score=score)


def test_ids_in_a_filter_are_uuids_in_their_usual_form() -> None:
    id = item_id("pbc", SOURCE)

    assert Filter(ids=(id.upper().replace("-", ""),)).ids == (id,)
    with pytest.raises(ValidationError):
        Filter(ids=("cell 1",))


def test_a_filter_without_conditions_is_empty_and_every_item_meets_it() -> None:
    assert Filter().empty
    assert Filter().meets(make_item())
    assert not Filter().hits(make_item())


def test_where_wants_every_field_and_any_of_its_values() -> None:
    item = make_item(label="EO", site="A")

    assert Filter(label=("EO", "BA"), site=("A",)).meets(item)
    assert not Filter(label=("EO",), site=("B",)).meets(item)
    assert not Filter(case=("1",)).meets(item)


def test_exclude_drops_for_any_value_of_any_field() -> None:
    item = make_item(label="EO", site="A")

    assert Filter(label=("EO",), site=("B",)).hits(item)
    assert not Filter(label=("BA",), case=("1",)).hits(item)
    assert Filter(ids=(item.id,)).hits(item)


@pytest.mark.parametrize(
    ("filter", "met"),
    [
        (Filter(um_per_px_min=0.1), True),
        (Filter(um_per_px_min=0.11), False),
        (Filter(um_per_px_max=0.1), True),
        (Filter(um_per_px_max=0.09), False),
        (Filter(acquired_from=date(2020, 5, 1)), True),
        (Filter(acquired_from=date(2020, 5, 2)), False),
        (Filter(acquired_to=date(2020, 5, 1)), True),
        (Filter(acquired_to=date(2020, 4, 30)), False),
    ],
)
def test_the_ends_of_a_range_are_in_it(filter: Filter, met: bool) -> None:
    item = make_item(um_per_px=0.1, acquired=date(2020, 5, 1))

    assert filter.meets(item) is met
    assert filter.hits(item) is met


def test_an_item_without_the_value_is_in_no_range() -> None:
    assert not Filter(um_per_px_max=99).meets(make_item())
    assert not Filter(acquired_to=date(2100, 1, 1)).hits(make_item())


def test_ranges_are_numbers_with_dates_as_days() -> None:
    where = Filter(um_per_px_max=0.5, acquired_from=date(1970, 1, 11))

    assert where.ranges == {"um_per_px": (None, 0.5), "acquired": (10, None)}
    assert where.words == {}
