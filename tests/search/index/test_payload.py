"""Items as engines store them, and back."""

from __future__ import annotations

import json
from datetime import date

from hypothesis import given, settings
from hypothesis import strategies as st

from search.index.payload import indexed, range_ends, to_item, to_payload
from search.schemas.filters import Filter
from search.schemas.items import Box, Item, item_id, source_id

fixed = settings(derandomize=True, deadline=None, max_examples=200)


def make_item(**facts: object) -> Item:
    source = source_id(b"image")
    return Item.model_validate(
        {"id": item_id("d", source), "dataset": "d", "source": source} | facts
    )


def test_a_payload_has_only_fields_that_are_known() -> None:
    item = make_item(acquired=date(1970, 1, 2), bbox=Box(x=-1, y=2, w=3, h=4))

    payload = to_payload(item)

    assert payload == {
        "kind": "cell",
        "dataset": "d",
        "source": item.source,
        "bbox": [-1, 2, 3, 4],
        "acquired": 1,
    }
    assert to_item(item.id, payload) == item


scales = st.floats(1e-9, 1000, exclude_max=True)
items = st.builds(
    make_item,
    um_per_px=st.none() | scales,
    acquired=st.none() | st.dates(),
    label=st.none() | st.text(min_size=1, max_size=20),
    bbox=st.none()
    | st.builds(Box, x=st.integers(), y=st.integers(), w=st.integers(1), h=st.integers(1)),
)


@fixed
@given(items)
def test_any_item_comes_back_through_json(item: Item) -> None:
    assert to_item(item.id, json.loads(json.dumps(to_payload(item)))) == item


@fixed
@given(scales, scales)
def test_an_indexed_number_keeps_its_place_and_has_few_digits(a: float, b: float) -> None:
    assert (a <= b) <= (indexed(a) <= indexed(b))
    assert indexed(indexed(a)) == indexed(a)
    assert len(f"{indexed(a):.15g}".replace(".", "").split("e")[0].strip("0")) <= 15


def test_the_ends_of_a_range_are_rounded_as_what_is_stored() -> None:
    scale = 0.21049892697013695
    payload = to_payload(make_item(um_per_px=scale))

    assert range_ends(Filter(um_per_px_min=scale)) == {"um_per_px": (payload["um_per_px"], None)}
    assert range_ends(Filter(acquired_to=date(1970, 1, 3))) == {"acquired": (None, 2)}
