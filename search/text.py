"""Words from outside: their Unicode form, their spelling, and words for what is not known."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

MISSING = frozenset(
    {"nan", "none", "na", "n/a", "#n/a", "<na>", "null", "nil", "nat", "-", "--", "?", "n.a."}
)
"""What programs and people write where nothing is known; compared in lower case."""
UNSEEN = {ord(sign): None for sign in "\u00ad\u200b\u2060\ufeff"} | {0xA0: " ", 0x202F: " "}
"""Signs without width that come along with copied text, and blanks that do not break."""


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun, in the singular or the plural: `1 cell`, `2,000 cells`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def complaints(errors: Iterable[Mapping[str, Any]]) -> str:
    """What pydantic finds wrong, a sentence each: where, what, and what came.

    Args:
        errors: As `ValidationError.errors()` gives them. A list counts as too short where what
            stands in it is wrong; that is left out.
    """
    found = list(errors)
    places = [tuple(one["loc"]) for one in found]
    sentences = []
    for one, place in zip(found, places, strict=True):
        if one["type"] == "too_short" and any(
            other[: len(place)] == place != other for other in places
        ):
            continue
        where = ".".join(map(str, place)) or "the request"
        why = str(one["msg"]).removeprefix("Value error, ")
        if one["type"].startswith("date_"):
            why = "is not a day; write it as 2024-03-01"
        came = one.get("input")
        shown = repr(came) if len(repr(came)) <= 60 else f"{repr(came)[:57]}..."
        got = "" if isinstance(came, dict | list) else f" (got {shown})"
        sentences.append(f"{where}: {why[:1].lower()}{why[1:]}{got}")
    return "; ".join(sentences)


def is_missing(text: str) -> bool:
    """Whether a word stands where nothing is known."""
    return text.strip().lower() in MISSING


def composed(text: str) -> str:
    """A text in the one spelling in which texts are compared.

    In composed form (NFC), without signs that nobody sees, and with plain blanks.
    """
    return unicodedata.normalize("NFC", text.translate(UNSEEN))


def forms(text: str) -> tuple[str, ...]:
    """A text as it may be stored: composed, as it came, decomposed; one for most texts."""
    return tuple(dict.fromkeys((composed(text), text, unicodedata.normalize("NFD", text))))


def spelling(name: str) -> str:
    """What two names have in common that differ in case, signs, leading zeros or a `.0` alone.

    `7`, `007 ` and `7.0` have one; so have `P-07` and `p 7`.
    """
    letters = composed(name).casefold().strip()
    letters = re.sub(r"(?<=\d)\.0+$", "", letters)
    letters = re.sub(r"\W|_", "", letters)
    return re.sub(r"(?<!\d)0+(?=\d)", "", letters)


NAMES_OF_PEOPLE = frozenset(
    [
        "name",
        "surname",
        "firstname",
        "lastname",
        "forename",
        "givenname",
        "familyname",
        "fullname",
        "patientname",
        "nachname",
        "vorname",
        "birth",
        "birthday",
        "birthdate",
        "dateofbirth",
        "dob",
        "geburtsdatum",
        "address",
        "street",
        "phone",
        "telephone",
        "mobile",
        "email",
        "mail",
        "ssn",
        "mrn",
        "nhs",
        "insurance",
        "passport",
    ]
)
"""Columns that say who a person is; compared by letters alone."""
PERSON = re.compile(
    r"(?P<birth>\b(?:born|birth|dob|d\.o\.b|geb)\b\.?[^\n]{0,25}?\d)"
    r"|(?P<name>\b(?:mr|mrs|ms|herr|frau)\b\.?\s+(?-i:[A-Z])\w+)"
    r"|(?P<named>\b(?:patient(?:in)?'?s? name|(?:sur)?name)\s*:\s*\w+)"
    r"|(?P<address>(?<![\w.+-])[\w.+-]+@[\w-]+\.\w+)"
    r"|(?P<number>\b(?:mrn|ssn|nhs|phone|tel)\b\.?:?\s*(?:(?:no\.?|number)\s*)?[\d+][\d -]{4,})",
    re.IGNORECASE,
)
"""Words that go before a name or a date of birth in a report, and addresses."""
PERSONAL = {
    "birth": "a date of birth",
    "name": "a person's name",
    "named": "a person's name",
    "address": "an e-mail address",
    "number": "a number that identifies a person",
}


def names_a_person(column: str) -> bool:
    """Whether a column, by its name, says who a person is."""
    return spelling(column) in NAMES_OF_PEOPLE


def personal(text: str) -> str | None:
    """What a text seems to hold of who a person is, in words; `None` where it seems to hold none.

    A safeguard against mistakes, not a proof: a name without a word before it is not seen.
    """
    found = PERSON.search(text)
    return PERSONAL[str(found.lastgroup)] if found else None
