"""What of the query's own source, case and patient is excluded, and whether that was possible."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from search.schemas.answers import Exclusion
from search.schemas.filters import Filter
from search.schemas.items import Item

Groups = Mapping[str, Collection[str]]
"""For each relation (item, source, case, patient) the values that the query has."""


def own_groups(items: Sequence[Item]) -> dict[str, set[str]]:
    """The sources, cases and patients of items."""
    names = ("source", "case", "patient")
    return {name: {getattr(item, name) for item in items} - {None} for name in names}


def exclusion_filter(own: Groups, relations: Collection[str], more: Filter | None = None) -> Filter:
    """One filter for everything that no hit may be.

    Args:
        own: Groups of the query.
        relations: Those to be excluded; near-duplicates (`duplicate`) are found by their pictures.
        more: What is excluded besides.
    """
    values = {
        "ids" if name == "item" else name: tuple(sorted(own.get(name, ())))
        for name in relations
        if name != "duplicate"
    }
    return (more or Filter()).either(Filter.model_validate(values))


def patient_exclusion(
    relations: Collection[str], patient_known: bool, found: Sequence[Item], called: str
) -> tuple[Exclusion, str | None]:
    """Whether the query's own patient was excluded, and a warning unless it certainly was.

    Args:
        relations: What the question excludes.
        patient_known: Whether the patient of the whole query is known.
        found: The items that were found.
        called: What these items are to the question, in the plural: `neighbours`.
    """
    if "patient" not in relations:
        return "off", "The query's own patient was not left out, as asked."
    if not patient_known:
        return "impossible", f"The query's patient is unknown: {called} may be of the same patient."
    unknown = sum(item.patient is None for item in found)
    if found and unknown == len(found):
        return "impossible", f"The library has no patient ids for these {called}."
    if unknown:
        return "partial", f"{unknown} of {len(found)} {called} have no patient id."
    return "applied", None
