"""Buttons that save a file, while the page stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from mimetypes import guess_type
from typing import Any

import streamlit as st


def save_button(
    label: str, content: bytes | str | Callable[[], bytes | str], name: str, **how: Any
) -> None:
    """A button that saves a file.

    Args:
        label: On the button.
        content: The file, or what makes it when it is wanted.
        name: Of the file; its ending says its kind.
        how: More for `st.download_button`.
    """
    icon = "picture_as_pdf" if name.endswith(".pdf") else "download"
    st.download_button(
        label, content, name, guess_type(name)[0], on_click="ignore",
        icon=f":material/{icon}:", **how,
    )  # fmt: skip
