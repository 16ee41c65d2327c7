"""Text from outside: its encoding, its Unicode form, and words that mean that nothing is known."""

from __future__ import annotations

import unicodedata
from itertools import takewhile
from pathlib import Path

from search.text import composed

PUNCTUATION = frozenset("‘’‚“”„–—…•°µ±²³¹½¼¾×·§€£™©«»‹›ªº¿¡\N{NO-BREAK SPACE}")
"""Signs beyond ASCII that tables of a laboratory hold."""
MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""What a file begins with that says its own encoding."""


class TextError(ValueError):
    """Text that cannot be read for what it is, and what to do about it."""


def decode_text(content: bytes) -> tuple[str, str]:
    """The text of a file in composed form (NFC) with plain line ends, and its encoding.

    UTF-8 and UTF-16 as they say; else Windows-1252 or Mac Roman, whichever gives words.

    Raises:
        TextError: neither does, or it holds control characters.
    """
    marked = [name for mark, name in MARKS.items() if content.startswith(mark)]
    try:
        text, encoding = content.decode(marked[0] if marked else "utf-8"), (marked or ["utf-8"])[0]
    except UnicodeDecodeError:
        text, encoding = _of_old_program(content)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if found := control_characters(text.replace("\n", "").replace("\t", "")):
        raise TextError(f"it holds control characters ({found}); save it as UTF-8 text")
    return composed(text), encoding


def _of_old_program(content: bytes) -> tuple[str, str]:
    """Bytes that are no UTF-8, in the encoding that gives the fewest odd characters."""
    tried: list[tuple[int, str, str]] = []
    for encoding in ("cp1252", "mac_roman"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        tried.append((_odd(text), text, encoding))
    if not tried or min(tried, key=lambda one: one[0])[0]:
        raise TextError(
            "it is neither UTF-8 nor plain Windows-1252 or Mac Roman; save it as UTF-8 "
            "(in Excel: CSV UTF-8)"
        )
    _, text, encoding = min(tried, key=lambda one: one[0])
    return text, encoding


def _odd(text: str) -> int:
    """Characters that no table of words holds: rare signs, and signs or capitals within a word."""
    odd = 0
    for at, sign in enumerate(text):
        if sign.isascii():
            continue
        before = _letters(text[max(at - 8, 0) : at][::-1])
        after = _letters(text[at + 1 : at + 9])
        within = bool(before) and bool(after)
        if sign == "’":
            odd += within and len(before) > 1 and len(after) > 2
        elif sign in PUNCTUATION:
            odd += within and sign not in "–—·"
        else:
            capital = before[:1].islower() and not sign.islower()
            odd += capital or not (sign.isalpha() and ord(sign) < 0x180)
    return odd


def _letters(text: str) -> str:
    """The letters that a text begins with."""
    return "".join(takewhile(str.isalpha, text))


def control_characters(text: str) -> str:
    """The control characters of a text by their numbers; empty if there are none."""
    found = sorted({sign for sign in text if unicodedata.category(sign) == "Cc"})
    return ", ".join(f"U+{ord(sign):04X}" for sign in found[:3])


def on_disk(path: Path) -> Path | None:
    """The file that a table means, whatever Unicode form its name has; `None` if there is none."""
    for tried in (path, Path(str(path).replace("\\", "/"))):
        if tried.is_file():
            return tried
        wanted = composed(tried.name)
        if tried.parent.is_dir():
            for there in tried.parent.iterdir() if not wanted.isascii() else ():
                if composed(there.name) == wanted and there.is_file():
                    return there
    return None


def printable(path: Path | str) -> str:
    """A path for a person to read, also where its bytes are no UTF-8."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
