"""What a case model says of uploaded fields and slides, as boxes and as a map."""

from __future__ import annotations

from search.schemas.items import Box
from search.schemas.mil import MilCell
from ui.look.palette import SEQUENCE
from ui.screens.cases.new_case import NAMED, named, slide_map


def cell(at: int, effect: float | None, field: int = 0) -> MilCell:
    box = Box(x=10 * at + 500, y=200, w=10, h=10)
    return MilCell(cell=at, item=None, field=field, box=box, attention=0.1, effect=effect)


def test_cells_of_a_field_are_coloured_over_all_fields_and_the_first_are_told() -> None:
    here = [cell(at, float(at) - 2) for at in range(NAMED + 2)]
    there = cell(20, 100.0, field=1)

    words = named([*here, there], here)
    alone = named(here, here)

    assert sum(bool(text) for text, _, _ in words.values()) == NAMED
    assert words[here[-1].box][0].startswith("effect +4.00")  # type: ignore[index]
    assert words[here[0].box][1] == SEQUENCE[0].lower()  # type: ignore[index]
    assert alone[here[-1].box][1] == SEQUENCE[-1].lower()  # type: ignore[index]
    assert words[here[-1].box][1] != SEQUENCE[-1].lower()  # type: ignore[index]


def test_the_map_of_a_slide_has_every_tile_in_its_place() -> None:
    drawn = slide_map([cell(0, 1.0), cell(3, -1.0), cell(5, None)])

    assert "aspect-ratio:60/10" in drawn
    assert drawn.count("<i ") == 3
    assert "left:50.000%;top:0.000%;width:16.667%;height:100.000%" in drawn
    assert "x 530, y 200: effect -1.00" in drawn
    assert "<svg" not in drawn  # the page takes drawings with titles out of what it is given
    assert slide_map([]) == ""

    over = slide_map([cell(0, 1.0)], ("data:x", 2000, 1000))
    assert '<img src="data:x" alt="">' in over
    assert "left:25.000%;top:20.000%;width:0.500%;height:1.000%" in over
