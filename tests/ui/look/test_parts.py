"""What the pages of many items are made of: tables, gates, boxes, charts, the matrix, the CSV."""

from __future__ import annotations

import csv
from io import StringIO

import numpy as np
import pytest

from search.schemas.evaluations import ConfusionMatrix, MethodResult, Scores
from search.schemas.items import Box, Item, item_id
from ui.look.curves import Line, chart
from ui.look.tables import badge, legend, meter, plain, table
from ui.screens.evaluate import matrix, told_limit
from ui.screens.library import reviews_csv
from ui.widgets.scatter import Gate
from ui.widgets.viewer import mark

NASTY = "<script>alert(1)</script>"


def test_a_gate_holds_what_lies_inside_also_where_it_is_bent() -> None:
    bent = Gate("L", ((0, 0), (4, 0), (4, 1), (1, 1), (1, 4), (0, 4)))
    x = np.array([0.5, 3.0, 3.0, 0.5, -1.0])
    y = np.array([0.5, 0.5, 3.0, 3.0, 0.5])

    assert bent.holds(x, y).tolist() == [True, True, False, True, False]


def test_a_gate_that_crosses_itself_follows_the_even_odd_rule() -> None:
    bow = Gate("bow", ((0, 0), (2, 2), (2, 0), (0, 2)))

    inside = bow.holds(np.array([0.2, 1.8, 1.0]), np.array([1.0, 1.0, 0.2]))

    assert inside.tolist() == [True, True, False]


def test_every_text_in_a_table_is_escaped() -> None:
    made = (
        table([NASTY], [[plain(NASTY)]], NASTY)
        + badge(NASTY, "good")
        + legend([(NASTY, "#000", "solid")])
    )

    assert "<script" not in made
    assert made.count("&lt;script&gt;") == 5


@pytest.mark.parametrize(
    ("value", "said"), [(12345, "12,345"), (0.12345, "0.123"), (True, "yes"), (None, "none")]
)
def test_a_value_is_said_as_people_read_it(value: object, said: str) -> None:
    assert said in plain(value)


def test_a_bar_is_as_long_as_its_share_of_the_largest() -> None:
    assert "width:25.0%" in meter(5, 20)
    assert "width" not in meter(0, 20)


def test_an_item_without_a_box_has_nothing_to_be_marked() -> None:
    whole = Item(id=item_id("made", "0" * 32), dataset="made", source="0" * 32)
    cell = whole.model_copy(update={"bbox": Box(x=3, y=4, w=5, h=6)})
    box = mark(cell, "#000000", "a cell")

    assert mark(whole, "#000000", "a cell") is None
    assert box is not None
    assert (box.x, box.y, box.w, box.h) == (3, 4, 5, 6)


def test_a_chart_says_its_figures_in_words_too() -> None:
    made = chart([Line("this one", [(0.5, 0.25), (1.0, 1.0)])], "share", "right", diagonal=True)

    assert 'role="img"' in made
    assert "this one: 50% to 25%, 100% to 100%" in made
    assert made.count("<circle") == 2


def method(counts: tuple[tuple[int, ...], ...]) -> MethodResult:
    scores = Scores(weighted_f1=0.5, balanced_accuracy=0.5, accuracy=0.5, macro_f1=0.5)
    return MethodResult(
        method="1-NN",
        k=1,
        scores=scores,
        intervals={},
        per_fold=(),
        classes=(),
        worst=None,
        confusion=ConfusionMatrix(matrix=counts, unanswered=(1, 0)),
        tied=0,
        tied_right=0,
        dangerous=0,
        reliability=(),
        ece=0.0,
        by_margin=(),
    )


def test_every_confusion_can_be_pressed_and_is_named_with_its_share() -> None:
    made = matrix(["blast", NASTY], method(((3, 0), (1, 4))), "blast", "blast")

    assert made.count("<button") == 4
    assert 'data-id="1,0"' in made
    assert "3 of blast, called blast: 75%" in made
    assert "1 of blast, called unanswered: 25%" in made
    assert made.count('aria-pressed="true"') == 1
    assert "<script" not in made


def test_the_csv_of_reviews_has_every_word_and_no_formula() -> None:
    word = {
        "label": "=1+1",
        "source_label": "monocyte",
        "caller": "open",
        "reviewer": "Ada",
        "at": "2026-11-26T12:00:00+00:00",
        "note": None,
    }
    text = reviews_csv([{"item": {"id": "a"}, "history": [word, {**word, "label": "blast"}]}])
    rows = list(csv.DictReader(StringIO(text)))

    assert [row["label"] for row in rows] == ["'=1+1", "blast"]
    assert {row["source_label"] for row in rows} == {"monocyte"}


@pytest.mark.parametrize(
    ("limit", "told"), [(20, 20), (400, 400), (512, 476), (1024, 1024), (1500, 1430), (4096, 4096)]
)
def test_no_upload_is_promised_that_is_refused(limit: float, told: int) -> None:
    assert told_limit(limit) == told
