"""Words from outside: forms, spellings, and what is not known."""

from __future__ import annotations

import unicodedata

import pytest
from pydantic import ValidationError

from search.schemas.cases import CaseRecordsWanted
from search.schemas.filters import Filter
from search.schemas.items import Item, item_id
from search.schemas.questions import About
from search.text import complaints, forms, is_missing, personal, spelling


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("." * 300_000, None),
        ("tel" + " " * 300_000, None),
        ("a-" * 100_000 + "@b.org", "an e-mail address"),
        ("Tel.: no. 555 12 34 of the ward", "a number that identifies a person"),
    ],
)
def test_whom_a_text_names_is_found_in_long_ones_too(text: str, found: str | None) -> None:
    assert personal(text) == found


@pytest.mark.parametrize(
    ("one", "other"),
    [("7", "007"), ("7.0", "007"), ("007 ", "7"), ("P-07", "p 7"), ("a_1", "A1"), ("10", "0010")],
)
def test_spellings_of_one_name_agree(one: str, other: str) -> None:
    assert spelling(one) == spelling(other)


@pytest.mark.parametrize(
    ("one", "other"), [("7", "70"), ("7", "17"), ("7.5", "7"), ("P1", "Q1"), ("1.10", "1.1")]
)
def test_spellings_of_two_names_differ(one: str, other: str) -> None:
    assert spelling(one) != spelling(other)


@pytest.mark.parametrize("text", ["nan", "NaN", " None", "NA", "n/a", "<NA>", "null", "-", "?"])
def test_words_for_nothing_are_known(text: str) -> None:
    assert is_missing(text)
    assert not is_missing(f"{text}1")


def test_text_of_a_query_is_composed_and_without_blanks() -> None:
    decomposed = unicodedata.normalize("NFD", "Müller")

    assert About(patient=f" {decomposed}\u200b ").patient == "Müller"
    with pytest.raises(ValidationError, match="is blank"):
        About(patient="  ")


def test_a_filter_meets_a_label_in_either_unicode_form() -> None:
    both = forms("Prömyelozyt")
    assert len(both) == 2
    for stored in both:
        item = Item(id=item_id("d", "s"), dataset="d", source="s", label=stored)
        for where in both:
            assert Filter(label=(where,)).meets(item)
            assert Filter(label=(where,)).hits(item)


def test_what_pydantic_finds_wrong_is_said_once_and_without_the_rest_of_the_record() -> None:
    record = {"case": "C1", "date": "2024-02-30", "report": "what nobody else should read"}
    with pytest.raises(ValidationError) as caught:
        CaseRecordsWanted.model_validate({"changes": [record, {"diagnosis": "AML"}]})

    assert complaints(caught.value.errors()) == (
        "changes.0.date: is not a day; write it as 2024-03-01 (got '2024-02-30'); "
        "changes.1.case: field required"
    )
