"""The report of an evaluation with a calibration: every figure in it is one of theirs."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from random_library import random_entries, random_service

from search.client.evaluations import wait_for
from search.schemas.calibration import CalibrationPlan
from search.schemas.evaluations import EvaluationPlan
from ui.exports.evaluation_report import abstention_svg, reliability_svg, write_report


def test_scores_curves_and_confusion_are_those_of_the_result(tmp_path: Path) -> None:
    service = random_service(tmp_path, random_entries(np.random.default_rng(5), 150, 12))
    plan = EvaluationPlan(ks=(3, 9), resamples=20, probe=False)
    record = wait_for(
        service.evaluations.get, service.evaluations.start(service.context(), plan).id, every_s=0.01
    )
    calibration = service.context().calibrate(CalibrationPlan(ks=(9,), sample=100))
    service.close()
    assert record.result is not None

    files = write_report(tmp_path / "report.md", record.result, calibration, ["one", "two"])

    text = files[0].read_text()
    assert "    one\n    two" in text
    for one in record.result.methods:
        span = one.intervals["weighted_f1"]
        want = f"{100 * one.scores.weighted_f1:.1f} [{100 * span.low:.1f}, {100 * span.high:.1f}]"
        assert want in text
    assert f"| 9 | {calibration.fits[0].votes}" in text
    assert f"Robustness index {record.result.bias.robustness:.3f}" in text  # type: ignore[union-attr]
    assert "no patient id" in text
    for file in files[1:]:
        drawn = ElementTree.fromstring(file.read_text())
        assert len(drawn.findall(".//{http://www.w3.org/2000/svg}polyline")) >= 2
    fit = calibration.fits[0]
    curve = reliability_svg({"a": fit.reliability})
    assert curve.count("<circle") == len(fit.reliability)
    assert abstention_svg({"a": fit.by_margin}).count("<circle") == len(fit.by_margin)
