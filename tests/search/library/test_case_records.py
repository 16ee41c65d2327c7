"""Records of cases: kept whole, corrected in place, and beside the shards."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from random_library import random_entries

from encoder.card import EncoderCard
from search.library.case_records import FILE, BadCase, CaseRecords, CaseRecordsDamaged
from search.library.collection import Collection
from search.library.library import Library
from search.maintenance.snapshots import restore, snapshot
from search.schemas.cases import CaseChange, CaseColumn, CaseFilter, CaseRecordsWanted


@pytest.fixture(name="cells")
def _cells(tmp_path: Path, rng) -> Collection:  # type: ignore[no-untyped-def, misc]
    library = Library.open(tmp_path / "library")
    with library.create("cells", EncoderCard(id="random", architecture="random-v1", dim=6)) as one:
        one.add(random_entries(rng))
        yield one


def change(cells: Collection, *changes: CaseChange, **more: object) -> int:
    wanted = CaseRecordsWanted.model_validate({"changes": changes, **more})
    return cells.cases.change(wanted, cells.store, "key1")


def test_a_correction_keeps_what_was_there_before_and_who_changed_it(cells: Collection) -> None:
    shards = {p: p.read_bytes() for p in (cells.folder / "shards").iterdir()}
    change(cells, CaseChange(case="P1-0", diagnosis="AML", date=date(2024, 3, 1)), author="AB")
    assert change(cells, CaseChange(case="P1-0", diagnosis="CML", clear=("date",))) == 1
    assert change(cells, CaseChange(case="P1-0", diagnosis="CML")) == 0

    found = CaseRecords(cells.versions).of(["P1-0", "P1-1"])

    assert list(found) == ["P1-0"]
    record = found["P1-0"]
    assert (record.diagnosis, record.date) == ("CML", None)
    assert [(one.caller, one.author) for one in record.edits] == [("key1", "AB"), ("key1", None)]
    assert record.edits[1].before == {"diagnosis": "AML", "date": "2024-03-01"}
    assert record.edits[1].after == {"diagnosis": "CML", "date": None}
    assert shards == {p: p.read_bytes() for p in (cells.folder / "shards").iterdir()}


def test_a_further_column_has_one_type_from_its_first_value_on(cells: Collection) -> None:
    change(
        cells,
        CaseChange(case="P1-0", more={"blasts": "34", "relapse": "no", "seen": "2024-01-05"}),
        CaseChange(case="P2-0", more={"blasts": "7.5", "relapse": "yes", "ward": "3b"}),
        columns=[CaseColumn(name="ward", type="text")],
    )

    types = {one.name: one.type for one in cells.cases.columns()}
    assert types == {"blasts": "number", "relapse": "flag", "seen": "date", "ward": "text"}
    assert cells.cases.labels("blasts") == {"P1-0": 34.0, "P2-0": 7.5}
    assert cells.cases.labels("relapse") == {"P1-0": False, "P2-0": True}
    many = CaseFilter(at_least={"blasts": 10})
    assert [one.case for one in cells.cases.all(many)] == ["P1-0"]
    for yes in (True, "yes"):
        assert [o.case for o in cells.cases.all(CaseFilter(more={"relapse": (yes,)}))] == ["P2-0"]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (CaseFilter(more={"blasts": ("many",)}), "'blasts' holds a number .* 'many'"),
        (CaseFilter(at_least={"ward": 3}), "'ward' holds words, no numbers"),
        (CaseFilter(more={"patient": ("P1",)}), "chosen by diagnosis, .*, not by 'patient'"),
        (CaseFilter(more={"blast": (3.0,)}), "no column 'blast'; there are"),
    ],
)
def test_a_condition_that_no_case_can_meet_is_told_as_such(
    cells: Collection, where: CaseFilter, words: str
) -> None:
    change(cells, CaseChange(case="P1-0", more={"blasts": 34, "ward": "3b"}))

    with pytest.raises(BadCase, match=words):
        cells.cases.all(where)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([CaseChange(case="P9-9", diagnosis="AML")], "case 'P9-9' has no item"),
        ([CaseChange(case=one) for one in ("P9-8", "P9-9")], "2 of 3 cases .*'P9-8', 'P9-9'"),
        ([CaseChange(case="P2-0", date=date(2924, 3, 1))], "2924-03-01 is before 1900 or in the"),
        (
            [CaseChange(case=c, more={"lymph": n}) for c, n in (("P1-0", "5"), ("P2-0", "12,5"))],
            "comma, such as '12,5'; write",
        ),
        ([CaseChange(case="P2-0", diagnosis="a"), CaseChange(case="P2-0", diagnosis="b")], "two"),
        ([CaseChange(case="P2-0", patient="P3")], "'P3', but its items are of 'P2'"),
        ([CaseChange(case="P2-0", more={"blasts": "many"})], "'blasts' holds a number .*'many'"),
        ([CaseChange(case="P2-0", more={"date_of_birth": "1950-01-02"})], "who a person is"),
        ([CaseChange(case="P2-0", report="Mrs. Roe, born 2.1.1950, has AML")], "person's name"),
        ([CaseChange(case="P2-0", clear=("blast",))], "no column 'blast'"),
    ],
    ids=[
        "unknown",
        "unknowns",
        "future",
        "comma",
        "two-diagnoses",
        "patient",
        "type",
        "birth",
        "name",
        "column",
    ],
)
def test_what_cannot_be_kept_is_told_in_a_sentence_and_nothing_is(
    cells: Collection, changes: list[CaseChange], words: str
) -> None:
    change(cells, CaseChange(case="P1-0", more={"blasts": 34}))
    before = (cells.versions.folder / FILE).read_bytes()

    with pytest.raises(BadCase, match=words) as caught:
        change(cells, CaseChange(case="P1-1", diagnosis="CLL"), *changes)

    assert (cells.versions.folder / FILE).read_bytes() == before
    assert "Roe" not in str(caught.value)
    assert list(cells.cases.of(["P1-0", "P1-1", "P2-0"])) == ["P1-0"]


def test_an_identifying_column_is_kept_where_that_is_asked_for(cells: Collection) -> None:
    change(cells, CaseChange(case="P1-0", more={"address": "x"}), identifying="keep")

    assert cells.cases.labels("address") == {"P1-0": "x"}


def test_a_torn_line_is_none_and_a_damaged_one_is_told(cells: Collection) -> None:
    change(cells, CaseChange(case="P1-0", diagnosis="AML"))
    log = cells.versions.folder / FILE
    log.write_bytes(log.read_bytes() + b'{"at": "2024')

    assert CaseRecords(cells.versions).labels("diagnosis") == {"P1-0": "AML"}
    change(cells, CaseChange(case="P1-1", diagnosis="CLL"))
    assert CaseRecords(cells.versions).labels("diagnosis") == {"P1-0": "AML", "P1-1": "CLL"}
    log.write_bytes(b"{}\n")
    with pytest.raises(CaseRecordsDamaged, match="restore"):
        cells.cases.all()


def test_a_snapshot_brings_the_records_back(cells: Collection, tmp_path: Path) -> None:
    change(cells, CaseChange(case="P1-0", diagnosis="AML", patient="P1"))
    snapshot(Library.open(tmp_path / "library"), "cells", tmp_path / "out.tar")
    other = Library.open(tmp_path / "other")

    restore(other, tmp_path / "out.tar")

    with other.collection("cells") as back:
        assert back.cases.labels("diagnosis") == {"P1-0": "AML"}
        assert back.cases.cases_of(["P1"]) == {"P1-0"}
