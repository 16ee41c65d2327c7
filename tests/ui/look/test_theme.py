"""The theme: contrast by WCAG 2.2 AA, by day and by night, and no colour outside it."""

from __future__ import annotations

import re

import pytest

from ui.look.theme import DARK, LIGHT, LOGO, OPTIONS, SHAPE_PAIRS, SHEETS, TEXT_PAIRS, contrast, css


@pytest.mark.parametrize("tokens", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXT_PAIRS, ids=lambda name: str(name))
def test_text_is_legible_on_every_ground(tokens: dict[str, str], text: str, ground: str) -> None:
    assert contrast(tokens[text], tokens[ground]) >= 4.5


@pytest.mark.parametrize("tokens", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("shape", "ground"), SHAPE_PAIRS, ids=lambda name: str(name))
def test_shapes_stand_out_from_every_ground(
    tokens: dict[str, str], shape: str, ground: str
) -> None:
    assert contrast(tokens[shape], tokens[ground]) >= 3


RULES = "\n".join(sheet.read_text() for sheet in SHEETS)


def test_the_mark_stands_out_by_day_and_by_night() -> None:
    (colour,) = set(re.findall(r"#[0-9a-f]{6}", LOGO))

    assert min(contrast(colour, tokens["panel"]) for tokens in (LIGHT, DARK)) >= 3


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_both_themes_name_the_same_colours_and_streamlit_gets_them() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert OPTIONS["theme.light.primaryColor"] == LIGHT["accent"]
    assert OPTIONS["theme.dark.primaryColor"] == DARK["accent"]


def test_the_style_sheet_uses_only_colours_that_are_named() -> None:
    used = set(re.findall(r"var\(--hs-([a-z-]+)\)", RULES))
    local = {"bar"}

    assert used - local <= LIGHT.keys()
    assert all(f"--hs-{name}: light-dark({LIGHT[name]}, {DARK[name]})" in css() for name in LIGHT)


def test_spaces_are_multiples_of_four_pixels() -> None:
    rules = re.findall(r"(?:margin|padding|gap)[a-z-]*:\s*([^;]+);", RULES)
    lengths = [int(n) for rule in rules for n in re.findall(r"(-?\d+)px", rule)]

    assert lengths
    assert [length for length in lengths if length % 4] == []
