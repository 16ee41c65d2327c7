"""Items and filters as engines store them: flat, with numbers that are not rounded on the way."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from search.schemas.filters import Filter, days
from search.schemas.items import Box, Item

EXACT = "um_per_px_exact"
"""Payload field with every digit of a scale that has more of them than an engine keeps."""


def indexed(number: float) -> float:
    """A number as engines can store it: 15 significant digits.

    The engine reads numbers of 16 and 17 digits back one unit in the last place off, so that
    a stored value would not meet a range that ends at it. Rounding keeps order and equality.
    """
    return float(f"{number:.15g}")


def range_ends(filter: Filter) -> dict[str, tuple[float | None, float | None]]:
    """The ranges of a filter (at least, at most), rounded as the stored numbers are."""
    return {
        name: (None if low is None else indexed(low), None if high is None else indexed(high))
        for name, (low, high) in filter.ranges.items()
    }


def to_payload(item: Item) -> dict[str, Any]:
    """An item as an engine stores it: flat, without its id and without what is not known.

    The box is four numbers and the date is days, so that both can be indexed.
    """
    payload = {
        name: value
        for name, value in item.__dict__.items()
        if value is not None and name not in ("id", "bbox", "acquired")
    }
    if item.bbox is not None:
        payload["bbox"] = [item.bbox.x, item.bbox.y, item.bbox.w, item.bbox.h]
    if item.acquired is not None:
        payload["acquired"] = days(item.acquired)
    if item.um_per_px is not None and item.um_per_px != indexed(item.um_per_px):
        payload |= {"um_per_px": indexed(item.um_per_px), EXACT: repr(item.um_per_px)}
    return payload


def to_item(id: str, payload: dict[str, Any]) -> Item:
    """The item that `to_payload` wrote down: equal to the one that was stored."""
    facts = {"id": id, **payload}
    if "bbox" in facts:
        x, y, w, h = facts["bbox"]
        facts["bbox"] = Box(x=x, y=y, w=w, h=h)
    if "acquired" in facts:
        facts["acquired"] = date(1970, 1, 1) + timedelta(days=facts["acquired"])
    if EXACT in facts:
        facts["um_per_px"] = float(facts.pop(EXACT))
    return Item(**facts)
