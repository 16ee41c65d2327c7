"""The pages in their order."""

from __future__ import annotations

from typing import Any

import streamlit as st

from ui.screens import atlas, case, compare, evaluate, find_similar, library


def pages() -> dict[str, Any]:
    """Every page by its name in the address; the first is where the page opens."""
    return {
        "": st.Page(
            find_similar.show, title="Find similar", icon=":material/search:", default=True
        ),
        "compare": _page(compare, "Compare", "view_column"),
        "case": _page(case, "Case", "assignment_ind"),
        "atlas": _page(atlas, "Atlas", "scatter_plot"),
        "evaluate": _page(evaluate, "Evaluate", "monitoring"),
        "library": _page(library, "Library", "database"),
    }


def _page(module: Any, title: str, icon: str) -> Any:
    name = module.__name__.rpartition(".")[2]
    return st.Page(module.show, title=title, icon=f":material/{icon}:", url_path=name)
