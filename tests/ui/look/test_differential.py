"""A differential count as a table."""

from __future__ import annotations

from search.votes.differential import Differential
from ui.look.differential import differential_table


def test_the_table_has_one_scale_and_counts_apart_what_is_no_leukocyte() -> None:
    made = differential_table(
        {"Recorded": Differential({"SNE": 1, "LY": 1, "RBC": 8, "<b>": 1})}, "Two cells."
    )

    assert made.count("width:36px") == 2
    assert "Fewer than 100 leukocytes" in made
    assert '<th scope="row">RBC</th>' in made.split("Counted apart")[1]
    assert "<b>" not in made
