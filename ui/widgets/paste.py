"""A picture from the clipboard: Ctrl+V anywhere on the page."""

from __future__ import annotations

import binascii
from base64 import b64decode

from ui.widgets.mounting import mount

MOST_MB = 15
"""Of a pasted picture; larger ones come as a file."""


def pasted(key: str) -> tuple[str, bytes] | None:
    """Name and bytes of what was pasted in this run; no bytes if it was too large."""
    found = mount("paste", {"most": MOST_MB << 20}, key, "picture", height=1).get("picture")
    if found is None:
        return None
    try:
        content = b64decode(str(found.get("content", "")), validate=True)
    except binascii.Error:
        content = b""
    return str(found.get("name") or "pasted"), content
