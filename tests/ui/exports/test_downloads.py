"""Answers as files."""

from __future__ import annotations

import csv
import io
import json
from types import SimpleNamespace
from typing import cast

import pytest

from search.schemas.answers import Answer, Hit
from search.schemas.cases import CaseRecord, CaseRecordsPage
from search.schemas.filters import Filter
from search.schemas.items import Box, Item, item_id
from search.schemas.reviews import ItemPage, ReviewedRecord, ReviewRecord
from ui.exports.downloads import as_csv, as_json, items_csv, reviews_csv
from ui.exports.selection import cells_csv
from ui.session.place import Place


def answer(label: str, score: float = 0.5) -> Answer:
    box = Box(x=1, y=2, w=3, h=4)
    item = Item(id=item_id("d", "s", box), dataset="d", source="s", bbox=box, label=label)
    return Answer(
        hits=(Hit(item=item, score=score),),
        collection="cells",
        items=1,
        encoder="colour",
        fingerprint="f" * 16,
        k=1,
        exact=False,
        where=Filter(),
        patients=0,
        sources=1,
        sites=0,
        patient_exclusion="impossible",
    )


def test_a_table_has_one_line_for_each_hit() -> None:
    (row,) = csv.DictReader(io.StringIO(as_csv(answer("blast, large")).decode("utf-8-sig")))

    assert row["rank"] == "1"
    assert row["label"] == "blast, large"
    assert (row["x"], row["h"], row["patient"]) == ("1", "4", "")


@pytest.mark.parametrize(
    ("score", "written"), [(0.5, "0.500000"), (-0.25, "-0.250000"), (1e-6, "0.000001")]
)
def test_a_score_is_written_with_six_places(score: float, written: str) -> None:
    (row,) = csv.DictReader(io.StringIO(as_csv(answer("blast", score)).decode("utf-8-sig")))

    assert row["score"] == written


def test_a_label_is_never_run_as_a_formula() -> None:
    (row,) = csv.DictReader(io.StringIO(as_csv(answer("=HYPERLINK(1)")).decode("utf-8-sig")))

    assert row["label"] == "'=HYPERLINK(1)"


def test_the_whole_answer_can_be_read_again() -> None:
    downloaded = json.loads(as_json(answer("blast"), None, {"item": "x"}))

    assert Answer.model_validate(downloaded["answer"]) == answer("blast")
    assert downloaded["search"] == {"item": "x"}


def test_a_table_of_items_has_the_label_that_a_reviewer_gave() -> None:
    item = answer("blast").hits[0].item
    by = {"source_label": "blast", "caller": "key", "note": None}
    history = tuple(
        ReviewRecord(label=label, reviewer=name, at=at, **by)
        for label, name, at in (("lymphocyte", "Ada", "1"), ("monocyte", "Ben", "2"),
                                (None, "Ben", "3"))
    )  # fmt: skip
    one = ReviewedRecord(item=item, label="lymphocyte", disputed=False, history=history)

    (row,) = csv.DictReader(io.StringIO(items_csv([item], {item.id: one}).decode("utf-8-sig")))

    assert (row["label"], row["reviewed_label"], row["reviewed_by"]) == (
        "blast",
        "lymphocyte",
        "Ada",
    )


def test_the_csv_of_reviews_has_every_label_and_no_formula() -> None:
    review = {
        "label": "=1+1",
        "source_label": "monocyte",
        "caller": "open",
        "reviewer": "Ada",
        "at": "2026-11-26T12:00:00+00:00",
        "note": None,
    }
    history = (ReviewRecord(**review), ReviewRecord(**{**review, "label": "blast"}))
    item = Item(id=item_id("made", "0" * 32), dataset="made", source="0" * 32)
    text = reviews_csv([ReviewedRecord(item=item, label="blast", disputed=False, history=history)])
    rows = list(csv.DictReader(io.StringIO(text)))

    assert [row["label"] for row in rows] == ["'=1+1", "blast"]
    assert {row["source_label"] for row in rows} == {"monocyte"}


def test_a_table_of_cells_names_the_patient_whom_only_a_record_names() -> None:
    item = Item(id=item_id("d", "s"), dataset="d", source="s", case="C1")
    records = CaseRecordsPage(
        records=(CaseRecord(case="C1", patient="P7"),), columns=(), total=1, next=None
    )
    client = SimpleNamespace(
        items_page=lambda name, where, most: ItemPage(items=(item,), total=1, next=None),
        reviews=lambda name: [],
        case_records=lambda name, question: records,
    )

    table = cells_csv(cast(Place, SimpleNamespace(client=client, name="cells")), [item.id])

    (row,) = csv.DictReader(io.StringIO(table.decode("utf-8-sig")))
    assert (row["case"], row["patient"]) == ("C1", "P7")
