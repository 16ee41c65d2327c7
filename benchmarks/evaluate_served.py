"""Evaluation, calibration and abstention of real cells, through the running API: a report.

    uv run --extra all python benchmarks/evaluate_served.py [FOLDER] [--encoder NAME]

FOLDER holds a folder for each label. If it is left out, it is the quarter of PBC that the shipped
encoder never saw, copied under `runs/`: on the rest of PBC, whose labels it learned, every figure
would flatter it. The library is kept there too, one for each encoder, so a second run only asks.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from encoder.registry import default_encoder, load
from search.client.evaluations import wait_for
from search.schemas.calibration import CalibrationPlan
from search.schemas.evaluations import EvaluationPlan
from search.settings import Settings
from ui.cli.demo import free_port, running
from ui.exports.evaluation_report import write_report

HERE = Path(__file__).parent.parent


def held_out_cells(data: Path, out: Path) -> Path:
    """Copies of the held-out quarter of PBC, a folder for each label."""
    from train.data import datasets
    from train.shipped.data import held_out

    cells = datasets.pbc(data / "pbc")
    folder = out / "pbc-held-out" / "cells"
    for path in (cells.paths[row] for row in np.flatnonzero(held_out(cells))):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path.parent.name / path.name)
    return folder


def main() -> None:
    data = Path(os.environ.get("HEMASEEK_DATA", HERE / ".." / "shared" / "data"))
    given = argparse.ArgumentParser()
    given.add_argument("folder", nargs="?", type=Path)
    given.add_argument("--encoder", default="")
    given.add_argument("--report", type=Path, default=HERE / "docs" / "evaluation-served.md")
    words = given.parse_args()
    words.folder = words.folder or held_out_cells(data, HERE / "runs" / "served")
    name = words.encoder or default_encoder()
    card = load(name).card
    dataset = words.folder.parent.name if words.folder.name == "cells" else words.folder.name
    library = HERE / "runs" / "served" / f"{dataset}-{card.fingerprint}"
    ingest = ["ingest", str(words.folder), "--dataset", dataset, "--library", str(library)]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "ui", *ingest, *(["--encoder", name] if words.encoder else [])],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    print(f"ingested in {time.perf_counter() - began:.0f} s")
    settings = Settings(library=library, port=free_port())
    with running(settings) as client:
        client.calibrate(CalibrationPlan(), settings.collection)
        print(f"calibrated after {time.perf_counter() - began:.0f} s")
        started = client.evaluate(EvaluationPlan(collection=settings.collection))
        record = wait_for(client.evaluation, started.id)
        if record.result is None:
            raise SystemExit(f"{record.state}: {record.error}")
        calibration, _ = client.calibration(settings.collection)
    print(f"evaluated after {time.perf_counter() - began:.0f} s: {record.result.seconds}")
    encoder = f" --encoder {words.encoder}" if words.encoder else ""
    commands = [
        f"hemaseek ingest {dataset}/cells --dataset {dataset} --library runs/{dataset}{encoder}",
        f"hemaseek serve --library runs/{dataset} &",
        f"hemaseek calibrate --library runs/{dataset}",
        f"hemaseek evaluate --library runs/{dataset} --report docs/{words.report.name}",
    ]
    for path in write_report(words.report, record.result, calibration, commands):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
