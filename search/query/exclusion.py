"""What of the query's own source, case and patient is excluded, and whether that was possible."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from search.index.contract import Store
from search.library.case_records import CaseRecords
from search.schemas.answers import Exclusion
from search.schemas.filters import Filter
from search.schemas.items import Item
from search.schemas.questions import About
from search.text import is_missing, spelling

MOST_NAMES = 100_000
"""Stored names that are compared with one that nobody has."""
Groups = Mapping[str, Collection[str]]
"""For each relation (item, source, case, patient) the values that the query has."""


@dataclass(frozen=True)
class UnknownName:
    """A patient or case that is to be left out and of which no item is stored."""

    field: Literal["patient", "case"]
    name: str
    near: tuple[str, ...]
    """Stored names that differ in case, signs, leading zeros or a `.0` alone."""

    @property
    def words(self) -> str:
        """The sentence for the answer."""
        sentence = f"No stored item is of {self.field} '{self.name}'"
        if not self.near:
            return f"{sentence}, so none had to be left out."
        names = " or ".join(f"'{name}'" for name in self.near[:3])
        return (
            f"{sentence}, so none was left out; stored is {names}. If that is the same "
            f"{self.field}, search again with that name."
        )


def understood(about: About) -> tuple[About, list[str]]:
    """What is known of a query, words such as `nan` taken as not known, and a warning for each."""
    words = {
        name: value
        for name in ("source", "case", "patient", "site")
        if (value := getattr(about, name)) is not None and is_missing(value)
    }
    warnings = [f"'{value}' was read as: the {name} is not known." for name, value in words.items()]
    return about.model_copy(update=dict.fromkeys(words)), warnings


def unknown_names(store: Store, named: About | Filter) -> list[UnknownName]:
    """The patients and cases that a query or an exclusion names and that no stored item has."""
    found = []
    fields: tuple[Literal["patient", "case"], ...] = ("patient", "case")
    for field in fields:
        value = getattr(named, field)
        for name in [value] if isinstance(value, str) else value or ():
            if store.count(Filter.model_validate({field: (name,)})):
                continue
            stored = store.facet(field, None, MOST_NAMES)
            near = sorted(one for one in stored if spelling(one) == spelling(name))
            found.append(UnknownName(field, name, tuple(near)))
    return found


def own_groups(items: Sequence[Item]) -> dict[str, set[str]]:
    """The sources, cases and patients of items."""
    names = ("source", "case", "patient")
    return {name: {getattr(item, name) for item in items} - {None} for name in names}


def recorded_patients(records: CaseRecords, cases: Sequence[str]) -> dict[str, str]:
    """The patient of each case whose record names one."""
    found = records.of(cases)
    return {case: one.patient for case, one in found.items() if one.patient is not None}


def with_records(records: CaseRecords, own: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Groups with the patients that the records of its cases name, and all cases of its patients.

    Args:
        records: Of the collection.
        own: Sources, cases and patients, as `own_groups` gives them.
    """
    patients = own["patient"] | set(recorded_patients(records, sorted(own["case"])).values())
    cases = own["case"] | records.cases_of(sorted(patients))
    return {**own, "patient": patients, "case": cases}


def patients_of(records: CaseRecords, items: Sequence[Item]) -> list[str | None]:
    """The patient of each item, as the item or the record of its case says."""
    named = recorded_patients(records, [item.case for item in items if item.case is not None])
    return [item.patient or named.get(item.case or "") for item in items]


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
    relations: Collection[str],
    patient_known: bool,
    found: Sequence[str | None],
    called: str,
    unknown_names: Sequence[UnknownName] = (),
) -> tuple[Exclusion, list[str]]:
    """Whether the query's own patient was excluded, and warnings unless it certainly was.

    Args:
        relations: What the question excludes.
        patient_known: Whether the patient of the whole query is known.
        found: The patient of each item that was found.
        called: What these items are to the question, in the plural: `neighbours`.
        unknown_names: Names of the query that no stored item has.
    """
    warnings = [one.words for one in unknown_names if one.field in relations]
    if "patient" not in relations:
        return "off", [*warnings, "The query's own patient was not left out, as requested."]
    if not patient_known:
        note = f"The query's patient is unknown: {called} may be of the same patient."
        return "impossible", [*warnings, note]
    unknown = sum(patient is None for patient in found)
    if found and unknown == len(found):
        return "impossible", [*warnings, f"The library has no patient ids for these {called}."]
    if any(one.near for one in unknown_names if one.field == "patient"):
        return "impossible", warnings
    if unknown:
        verb = "has" if unknown == 1 else "have"
        return "partial", [*warnings, f"{unknown} of {len(found)} {called} {verb} no patient id."]
    return "applied", warnings
