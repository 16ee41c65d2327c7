"""`hemaseek evaluate`: a record for programs, a report for people, a refusal in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command import hemaseek
from random_library import random_entries, random_service

from search.schemas.evaluations import EvaluationRecord


@pytest.fixture(name="library", scope="module")
def _library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluating")
    random_service(folder, random_entries(np.random.default_rng(3), 120, 12)).close()
    return folder / "library"


def test_the_verb_prints_the_record_and_writes_a_report_with_its_curves(
    library: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.md"
    words = ["--library", str(library), "-k", "1", "-k", "5", "--resamples", "20"]
    words += ["--split", "stratified", "--folds", "3", "--report", str(report)]

    done = hemaseek("evaluate", *words)

    assert done.returncode == 0, done.stderr
    record = EvaluationRecord.model_validate(json.loads(done.stdout))
    assert record.result is not None
    assert [one.method for one in record.result.methods] == ["1-NN", "5-NN", "linear probe"]
    text = report.read_text()
    assert f"hemaseek evaluate {' '.join(words)}" in text
    assert "3 stratified folds by patient" in text
    best = max(record.result.methods[:2], key=lambda one: one.scores.weighted_f1)
    assert f"{100 * best.scores.weighted_f1:.1f}" in text
    for name in ("reliability", "abstention"):
        drawn = report.with_name(f"report-{name}.svg").read_text()
        assert drawn.startswith("<svg")
        assert f"report-{name}.svg" in text


def test_what_the_data_does_not_allow_exits_1_in_words(library: Path) -> None:
    done = hemaseek(
        "evaluate", "--library", str(library), "--split", "temporal", "--no-probe", "--no-index"
    )

    assert done.returncode == 1
    assert "no item has a date of acquisition" in done.stderr


def test_a_transform_is_scored_inside_the_folds(library: Path) -> None:
    words = ["--library", str(library), "-k", "5", "--resamples", "20", "--no-probe", "--no-index"]

    done = hemaseek(
        "evaluate", *words, "--split", "stratified", "--folds", "3", "--adapt", "metric"
    )

    assert done.returncode == 0, done.stderr
    result = EvaluationRecord.model_validate(json.loads(done.stdout)).result
    assert result is not None
    assert any("vectors adapted by 'metric', fitted anew" in note for note in result.notes)
