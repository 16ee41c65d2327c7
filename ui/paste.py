"""A picture from the clipboard: Ctrl+V anywhere on the page."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

MOST_MB = 15
"""Of a pasted picture; larger ones come as a file."""


@cache
def _component() -> Callable[..., Any]:
    script = Path(__file__).with_name("paste.js").read_text()
    made: Callable[..., Any] = st.components.v2.component(
        "hemaseek.paste", html="<span></span>", js=script
    )
    return made


def pasted(key: str) -> tuple[str, bytes] | None:
    """Name and bytes of what was pasted in this run; no bytes if it was too large."""
    found = _component()(
        data={"most": MOST_MB << 20}, key=key, on_picture_change=lambda: None, height=1
    ).picture
    if not found:
        return None
    try:
        content = b64decode(str(found.get("content", "")), validate=True)
    except binascii.Error:
        content = b""
    return str(found.get("name") or "pasted"), content
