"""Curves as SVG."""

from __future__ import annotations

from xml.etree import ElementTree

from ui.look.curves import as_file, chart


def test_a_chart_says_its_figures_in_words_too() -> None:
    made = chart({"this one": [(0.5, 0.25), (1.0, 1.0)]}, "share", "right", diagonal=True)

    assert 'role="img"' in made
    assert "this one: 50% to 25%, 100% to 100%" in made
    assert made.count("<circle") == 2


def test_a_chart_as_a_file_is_an_image_of_its_own() -> None:
    made = as_file(chart({"<a>": [(0.0, 0.5)], "b": [(1.0, 0.6)]}, "across", "up", low=0.5))
    root = ElementTree.fromstring(made)

    assert made.startswith("<svg xmlns")
    assert (root.get("width"), root.get("height")) == ("320", "320")
    assert "&lt;a&gt;" in made
