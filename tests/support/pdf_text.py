"""The text of a PDF."""

from __future__ import annotations

import re
import zlib
from base64 import a85decode


def words(pdf: bytes) -> str:
    """The text of every page, as it is drawn."""
    found = []
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.S):
        try:
            plain = zlib.decompress(a85decode(stream.strip().removesuffix(b"~>")))
        except (ValueError, zlib.error):
            continue
        found += re.findall(rb"\(((?:[^()\\]|\\.)*)\) Tj", plain)
    return b" ".join(found).decode("cp1252")
