"""Conditions on stored items."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from pydantic import Field, PrivateAttr

from search.schemas.items import KEYWORDS, Item, ItemId, Kind, Record
from search.text import forms

RANGE_FIELDS = (("um_per_px_min", "um_per_px_max"), ("acquired_from", "acquired_to"))
"""The fields of `Filter` that are the two ends of a range."""


def days(day: date) -> int:
    """Days since 1970-01-01, as dates are indexed."""
    return day.toordinal() - date(1970, 1, 1).toordinal()


def stored_forms(values: tuple[str, ...]) -> tuple[str, ...]:
    """Some words in every Unicode form in which they may be stored."""
    return tuple(form for value in values for form in forms(value))


class Filter(Record):
    """Conditions on items.

    As `where`, an item must meet every field that is given, having any one of its values.
    As `exclude`, an item is dropped if it has any one value of any field.
    """

    ids: tuple[ItemId, ...] = ()
    """Item ids."""
    kind: tuple[Kind, ...] = ()
    """Kinds."""
    dataset: tuple[str, ...] = ()
    """Datasets."""
    source: tuple[str, ...] = ()
    """Sources."""
    label: tuple[str, ...] = ()
    """Labels."""
    case: tuple[str, ...] = ()
    """Cases."""
    patient: tuple[str, ...] = ()
    """Patients, as items or the records of their cases name them."""
    site: tuple[str, ...] = ()
    """Sites."""
    stain: tuple[str, ...] = ()
    """Stains."""
    scanner: tuple[str, ...] = ()
    """Scanners."""
    um_per_px_min: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """At least this many micrometres per pixel; an item without a scale does not meet it."""
    um_per_px_max: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """At most this many micrometres per pixel."""
    acquired_from: date | None = None
    """On this day or later; an item without a date does not meet it."""
    acquired_to: date | None = None
    """On this day or earlier."""
    _recorded: tuple[str, ...] = PrivateAttr(())
    _of_nobody: bool = PrivateAttr(False)

    def with_recorded(self, cases: tuple[str, ...]) -> Filter:
        """This one, whose condition on patients items of an unknown patient meet by one of some
        cases, too: those whose record names one of `patient`.

        `search.index.recorded` asks stores so; what `both`, `either` and `parts` make knows nothing
        of records.
        """
        known = self.model_copy()
        known._recorded = cases
        return known

    def of_nobody(self) -> Filter:
        """This one, with the condition that an item itself names no patient."""
        bare = self.model_copy()
        bare._of_nobody = True
        return bare

    @property
    def nobodys(self) -> bool:
        """See `of_nobody`."""
        return self._of_nobody

    @property
    def recorded(self) -> tuple[str, ...]:
        """See `with_recorded`."""
        return self._recorded

    @property
    def words(self) -> dict[str, tuple[str, ...]]:
        """The keyword fields that carry a condition."""
        return {name: values for name in KEYWORDS if (values := getattr(self, name))}

    @property
    def stored_words(self) -> dict[str, tuple[str, ...]]:
        """`words` in every Unicode form in which they may be stored."""
        return {name: stored_forms(values) for name, values in self.words.items()}

    @property
    def ranges(self) -> dict[str, tuple[float | None, float | None]]:
        """The numeric fields that carry a condition, as (at least, at most)."""
        found: dict[str, tuple[float | None, float | None]] = {
            "um_per_px": (self.um_per_px_min, self.um_per_px_max),
            "acquired": (
                None if self.acquired_from is None else days(self.acquired_from),
                None if self.acquired_to is None else days(self.acquired_to),
            ),
        }
        return {name: ends for name, ends in found.items() if ends != (None, None)}

    def both(self, other: Filter) -> Filter | None:
        """As `where`, what meets this and `other`; `None` where nothing can meet both."""
        changes: dict[str, Any] = {}
        for name in ("ids", *KEYWORDS):
            mine, theirs = getattr(self, name), getattr(other, name)
            changes[name] = (
                tuple(v for v in mine if v in theirs) if mine and theirs else mine or theirs
            )
            if (mine or theirs) and not changes[name]:
                return None
        for low, high in RANGE_FIELDS:
            for name, narrower in ((low, max), (high, min)):
                ends = [v for v in (getattr(self, name), getattr(other, name)) if v is not None]
                changes[name] = narrower(ends) if ends else None
            if None not in (changes[low], changes[high]) and changes[low] > changes[high]:
                return None
        return Filter(**changes)

    def either(self, other: Filter) -> Filter:
        """As `exclude`, what this or `other` hits.

        Raises:
            ValueError: both have a range on one field; two ranges are not one.
        """
        if self.ranges.keys() & other.ranges.keys():
            raise ValueError("two ranges of one field cannot be excluded at once")
        changes: dict[str, Any] = {
            name: tuple(dict.fromkeys((*getattr(self, name), *getattr(other, name))))
            for name in ("ids", *KEYWORDS)
        }
        for name in (end for ends in RANGE_FIELDS for end in ends):
            mine = getattr(self, name)
            changes[name] = getattr(other, name) if mine is None else mine
        return Filter(**changes)

    @property
    def parts(self) -> list[Filter]:
        """Each condition as a filter of its own: as `exclude`, this hits what any part hits."""
        found = [Filter(**{name: v}) for name in ("ids", *KEYWORDS) if (v := getattr(self, name))]
        return found + [
            Filter(**{name: getattr(self, name) for name in ends})
            for ends in RANGE_FIELDS
            if any(getattr(self, name) is not None for name in ends)
        ]

    @property
    def empty(self) -> bool:
        """Whether there is no condition at all."""
        return not (self.ids or self.words or self.ranges or self.recorded or self.nobodys)

    def meets(self, item: Item) -> bool:
        """Whether an item meets every condition: the plain statement of `where`."""
        return all(self._tests(item))

    def hits(self, item: Item) -> bool:
        """Whether an item has any of the values: the plain statement of `exclude`."""
        return any(self._tests(item))

    def _tests(self, item: Item) -> list[bool]:
        tests = [item.id in self.ids] if self.ids else []
        words = self.stored_words
        if self.recorded:
            own = item.patient in words.pop("patient", ())
            tests.append(own or (item.patient is None and item.case in self.recorded))
        tests += [getattr(item, name) in values for name, values in words.items()]
        tests += [item.patient is None] * self.nobodys
        for name, (low, high) in self.ranges.items():
            value = getattr(item, name)
            number = days(value) if isinstance(value, date) else value
            tests.append(
                number is not None
                and (low is None or number >= low)
                and (high is None or number <= high)
            )
        return tests
