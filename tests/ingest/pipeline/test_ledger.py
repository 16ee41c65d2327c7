"""The ledger of ingests: what became of each source outlives the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ingest.pipeline.ledger import Ledger, LedgerError, Row


def test_rows_and_runs_outlive_the_process(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite", "cells", "f") as ledger:
        run = ledger.begin({"paths": ["a"]})
        ledger.write([Row(path="/a", dataset="d", state="done", items=3, sample=("x",))])
        ledger.end("done", "3 stored")
    with Ledger(tmp_path / "l.sqlite", "cells", "f") as ledger:
        (row,) = ledger.rows()
        assert (row.state, row.items, row.sample, row.run) == ("done", 3, ("x",), run)
        assert [(one.state, one.summary) for one in ledger.runs()] == [("done", "3 stored")]


def test_another_collection_or_encoder_has_its_own_sources(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite", "cells", "f") as ledger:
        ledger.write([Row(path="/a", dataset="d", state="done")])
    for collection, fingerprint in (("cells", "g"), ("tiles", "f")):
        with Ledger(tmp_path / "l.sqlite", collection, fingerprint) as ledger:
            assert ledger.rows() == []


def test_a_quarantined_source_can_be_released(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite", "cells", "f") as ledger:
        rows = [Row(path=f"/{n}", dataset="d", state="quarantined", reason="no") for n in "ab"]
        ledger.write(rows)

        assert ledger.retry(["/a"]) == 1
        assert ledger.counts() == {"done": 0, "pending": 1, "quarantined": 1}
        assert ledger.retry() == 1


def test_an_index_that_was_not_built_is_remembered(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite", "cells", "f") as ledger:
        assert not ledger.unbuilt
        ledger.mark_unbuilt()
    with Ledger(tmp_path / "l.sqlite", "cells", "f") as ledger:
        assert ledger.unbuilt
        ledger.mark_built()
        assert not ledger.unbuilt


def test_a_ledger_that_cannot_be_kept_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(LedgerError, match="cannot keep the ledger"):
        Ledger(tmp_path / "file" / "l.sqlite")


def test_a_run_that_was_killed_is_not_shown_as_running(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite", "cells", "f") as ledger:
        ledger.begin({})
    with Ledger(tmp_path / "l.sqlite", "cells", "f") as ledger:
        ledger.begin({})
        assert [run.state for run in ledger.runs()] == ["running", "failed"]


def test_a_run_tells_how_far_it_is_and_one_whose_process_is_gone_has_failed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "l.sqlite"
    begin = (
        "import sys; from pathlib import Path; from ingest.pipeline.ledger import Ledger;"
        "ledger = Ledger(Path(sys.argv[1]), 'cells', 'f'); ledger.begin({}); ledger.note('3 of 9')"
    )
    subprocess.run([sys.executable, "-c", begin, str(path)], check=True)

    with Ledger(path, "cells", "f") as ledger:
        (gone,) = ledger.runs()
        ledger.begin({})
        ledger.note("1 of 9 files")
        mine = ledger.runs()[0]

    assert (gone.state, gone.summary) == ("failed", "its process is gone, after: 3 of 9")
    assert (mine.state, mine.summary) == ("running", "1 of 9 files")
