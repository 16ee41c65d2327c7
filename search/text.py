"""Words from outside: their Unicode form, their spelling, and words for what is not known."""

from __future__ import annotations

import re
import unicodedata

MISSING = frozenset(
    {"nan", "none", "na", "n/a", "#n/a", "<na>", "null", "nil", "nat", "-", "--", "?", "n.a."}
)
"""What programs and people write where nothing is known; compared in lower case."""
UNSEEN = {ord(sign): None for sign in "\u00ad\u200b\u2060\ufeff"} | {0xA0: " ", 0x202F: " "}
"""Signs without width that come along with copied text, and blanks that do not break."""


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
