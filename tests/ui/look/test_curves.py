"""Curves as SVG."""

from __future__ import annotations

from ui.look.curves import Line, chart


def test_a_chart_says_its_figures_in_words_too() -> None:
    made = chart(
        [Line("this evaluation", [(0.5, 0.25), (1.0, 1.0)])], "share", "right", diagonal=True
    )

    assert 'role="img"' in made
    assert "this evaluation: 50% to 25%, 100% to 100%" in made
    assert made.count("<circle") == 2
