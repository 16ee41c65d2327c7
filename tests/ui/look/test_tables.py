"""Tables, badges and bars: every text escaped, every value as people read it."""

from __future__ import annotations

import pytest

from ui.look.tables import badge, legend, plain, table

NASTY = "<script>alert(1)</script>"


def test_every_text_in_a_table_is_escaped() -> None:
    made = (
        table([NASTY], [[plain(NASTY)]], NASTY)
        + badge(NASTY, "good")
        + legend([(NASTY, "#000", "solid")])
    )

    assert "<script" not in made
    assert made.count("&lt;script&gt;") == 5


@pytest.mark.parametrize(
    ("value", "shown"), [(12345, "12,345"), (0.12345, "0.123"), (True, "yes"), (None, "none")]
)
def test_values_are_formatted_for_people(value: object, shown: str) -> None:
    assert shown in plain(value)
