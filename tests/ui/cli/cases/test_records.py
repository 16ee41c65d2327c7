"""`hemaseek cases`: a table in, records out, corrections, and similar cases by name alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from random_library import random_entries, random_service
from typer.testing import CliRunner

from ui.cli.main import app

TABLE = "case,diagnosis,date,blasts\nP1-0,AML,2024-03-01,34\nP2-0,CLL,2023-01-01,0\n"


def hemaseek(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_table_is_imported_listed_corrected_and_asked_about(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    random_service(tmp_path, random_entries(rng)).close()
    at = ["--library", str(tmp_path / "library")]
    (tmp_path / "cases.csv").write_text(TABLE)

    done = json.loads(hemaseek("cases", "import", str(tmp_path / "cases.csv"), *at))
    hemaseek("cases", "set", "P1-0", "diagnosis=AML with maturation", "date=", *at)
    listed = hemaseek("cases", "list", "--where", "blasts=34", *at)
    similar = json.loads(hemaseek("cases", "P2-0", "--where", "diagnosis=AML with maturation", *at))

    assert done["written"] == 2
    assert done["columns"] == [{"name": "blasts", "type": "number"}]
    (record,) = [json.loads(line) for line in listed.splitlines()]
    assert (record["case"], record["diagnosis"]) == ("P1-0", "AML with maturation")
    assert "date" not in record
    assert [one["value"] for one in similar["cases"]] == ["P1-0"]
    assert similar["cases"][0]["records"][0]["diagnosis"] == "AML with maturation"
