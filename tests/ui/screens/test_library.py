"""The page *Library*: the reviews as a file."""

from __future__ import annotations

import csv
from io import StringIO

from ui.screens.library import reviews_csv


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
