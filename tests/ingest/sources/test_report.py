"""What a run did, in words and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from ingest.sources.report import Clock, Failure, Progress, Report

REPORT = Report(
    stored=1200,
    unchanged=3,
    duplicates=1,
    failures=[
        Failure("a.png", "the box has zero size", "object 3"),
        Failure("b.png", "it is empty"),
        Failure("c.png", "the box has zero size"),
    ],
    seconds=10,
)


def test_a_report_in_one_line() -> None:
    assert str(REPORT) == (
        "1,200 stored, 3 unchanged, 0 updated, 1 duplicates, 3 failed in 10.0 s (120.4 items/s)"
    )


def test_a_run_with_failures_is_not_ok() -> None:
    assert not REPORT.ok
    assert Report(warnings=["a"]).ok


def test_failures_name_the_part_and_are_counted_by_reason() -> None:
    assert str(REPORT.failures[0]) == "a.png (object 3): the box has zero size"
    assert str(REPORT.failures[1]) == "b.png: it is empty"
    assert list(REPORT.reasons().items()) == [("the box has zero size", 2), ("it is empty", 1)]


def test_the_written_report_holds_everything(tmp_path: Path) -> None:
    REPORT.write(tmp_path / "report.json")

    facts = json.loads((tmp_path / "report.json").read_text())
    assert (facts["stored"], facts["failed"], facts["ok"]) == (1200, 3, False)
    assert facts["failures"][0] == {
        "path": "a.png",
        "reason": "the box has zero size",
        "where": "object 3",
    }
    assert list(tmp_path.iterdir()) == [tmp_path / "report.json"]


def test_an_empty_run_divides_by_nothing() -> None:
    assert Report().items_per_second == 0


def test_the_clock_tells_often_enough_and_at_the_end() -> None:
    told: list[Progress] = []
    report = Report()
    clock = Clock(report, 4, told.append, every=1000)

    clock.tick(0)
    report.sources = 2
    clock.tick(20)
    clock.tick(20, last=True)

    (last,) = told
    assert (last.done, last.total, last.items) == (2, 4, 20)
    assert last.eta is not None
    assert last.eta > 0
    assert report.seconds > 0


def test_without_a_total_no_time_left_is_said() -> None:
    told: list[Progress] = []
    Clock(Report(sources=3), None, told.append).tick(3, last=True)
    assert (told[0].total, told[0].eta) == (None, None)
