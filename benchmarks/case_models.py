"""Train case models over HTTP on planted patients: does attention find what was planted?

    python benchmarks/case_models.py [--encoder NAME] [--out FOLDER] [--poolings abmil_gated ...]

makes the patients of `benchmarks/planted.py` in FOLDER, ingests them and their table of cases with
the commands a clinic would use, serves the library, trains each model through the service and
applies it to every stored case. Whatever is scored was held out. Columns: scores of cases, expected
calibration error, share that is answered and right, and the pointing game: of the cases with a
finding, the share whose first cell is of the finding, by the effect of cells on that finding, and
by attention (beside it: what a cell drawn from each case would reach). Below that, models that tell
one finding from normal, as a question about one finding would be put.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import uvicorn

from search.client.client import Client
from search.evaluation.metrics import draws, ends
from search.schemas.filters import Filter
from search.schemas.items import source_id
from search.schemas.mil import MilModel, MilPlan, MilQuestion
from search.settings import Settings
from ui.cli.demo import free_port
from ui.cli.serving import application

FINDINGS = ("left shift", "eosinophilia", "lymphocytosis")
POOLINGS = ("mean", "max", "abmil", "abmil_gated", "clam_sb", "transmil")


def run(*words: str) -> None:
    """A command of the product."""
    subprocess.run([sys.executable, "-m", "ui", *words], check=True, stdout=subprocess.DEVNULL)


def prepared(out: Path, encoder: str | None, seed: int) -> None:
    """The planted patients, ingested; what is there already stays."""
    if (out / "library").exists():
        return
    here = Path(__file__).parent
    command = [sys.executable, str(here / "planted.py"), str(out / "planted"), "--seed", str(seed)]
    subprocess.run(command, check=True)
    library = ("--library", str(out / "library"))
    named = () if encoder is None else ("--encoder", encoder)
    run("ingest", str(out / "planted" / "manifest.csv"), "--dataset", "planted", *library, *named)
    run("cases", "import", str(out / "planted" / "cases.csv"), *library)


@contextmanager
def serving(library: Path) -> Iterator[Client]:
    """The service over real HTTP, in a thread of this process."""
    settings = Settings(library=library, port=free_port(), preload=False)
    config = uvicorn.Config(application(settings), port=settings.port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    with Client(settings.url, timeout=600) as client:
        yield client
    server.should_exit = True
    thread.join(30)


def telling(folder: Path) -> dict[str, bool]:
    """Whether each picture, by its source's id, is of its case's finding."""
    with (folder / "planted.csv").open(encoding="utf-8") as file:
        return {
            source_id((folder / row["path"]).read_bytes()): row["telling"] == "1"
            for row in csv.DictReader(file)
        }


def pointing(
    client: Client, card: MilModel, named: dict[str, str], tells: dict[str, bool]
) -> tuple[str, str, str]:
    """The pointing game by effect and by attention with their intervals; and chance.

    Of the cases with a finding; `named` has the finding of each case.
    """
    hits, chance, patients = [], [], []
    for case, finding in sorted(named.items()):
        question = MilQuestion(model=card.id, case=case, towards=finding, order="effect")
        answer = client.predict_case("cells", question)
        assert answer.unseen == "applied"
        assert answer.networks == 1
        flags = [tells[cell.item.source] for cell in answer.cells if cell.item]
        if any(flags):
            looked = max(range(len(flags)), key=lambda at: answer.cells[at].attention)
            hits.append((flags[0], flags[looked]))
            chance.append(np.mean(flags))
            patients.append(next(iter(client.facet("patient", Filter(case=(case,)), "cells"))))
    drawn = draws(patients, 1000, 0)
    weights = drawn.counts[:, drawn.member]
    words = []
    for flags in np.array(hits).T:
        low, high = ends((weights * flags).sum(axis=1) / weights.sum(axis=1))
        words.append(f"{np.mean(flags):.2f} [{low:.2f}, {high:.2f}]")
    return words[0], words[1], f"{np.mean(chance):.2f}"


def findings(folder: Path) -> dict[str, str]:
    """The finding of each case."""
    with (folder / "cases.csv").open(encoding="utf-8") as file:
        return {row["case"]: row["diagnosis"] for row in csv.DictReader(file)}


def one_finding(folder: Path, finding: str) -> dict[str, dict[str, str]]:
    """The cases of one finding and the normal ones, as values of a column of their own."""
    named = findings(folder).items()
    return {case: {"finding": one} for case, one in named if one in (finding, "normal")}


def row(
    client: Client, plan: MilPlan, named: dict[str, str], tells: dict[str, bool], first: str
) -> str:
    """One line of the table; pointing is over the cases that the model was trained on."""
    start = time.process_time()
    card = client.trained_model("cells", plan)
    seconds = time.process_time() - start
    scores = card.scores

    def figure(name: str) -> str:
        span = scores.intervals[name]
        return f"{scores.figures[name]:.2f} [{span.low:.2f}, {span.high:.2f}]"

    mine = {case: one for case, one in named.items() if not plan.values or case in plan.values}
    by_effect, by_attention, chance = pointing(client, card, mine, tells)
    by_effect = "" if plan.pooling == "transmil" else by_effect
    by_attention = "" if plan.pooling == "mean" else by_attention
    right = "" if scores.answered_accuracy is None else f"{scores.answered_accuracy:.0%}"
    cells = [
        first,
        figure("auroc"),
        figure("balanced_accuracy"),
        f"{scores.ece_before:.2f} / {scores.ece:.2f}",
        f"{scores.coverage:.0%} / {right}",
        by_effect,
        by_attention,
        chance,
        f"{seconds:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/case-models"))
    parser.add_argument(
        "--encoder", help="An encoder's name or folder; the shipped one if left out."
    )
    parser.add_argument("--poolings", nargs="*", default=list(POOLINGS), choices=POOLINGS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ.setdefault("HEMASEEK_DATA", "../shared/data")
    prepared(given.out, given.encoder, given.seed)
    tells, named = telling(given.out / "planted"), findings(given.out / "planted")
    print(
        "| pooling | AUROC | balanced accuracy | ECE plain / calibrated | answered / right | "
        "pointing by effect | by attention | by chance | CPU s |\n" + "|---" * 9 + "|"
    )
    with serving(given.out / "library") as client:
        for pooling in given.poolings:
            plan = MilPlan(pooling=pooling, name=pooling, seed=given.seed)
            print(row(client, plan, named, tells, pooling), flush=True)
        for finding in FINDINGS:
            values = one_finding(given.out / "planted", finding)
            for pooling in ("abmil", "abmil_gated"):
                plan = MilPlan(label="finding", values=values, pooling=pooling, seed=given.seed)
                print(row(client, plan, named, tells, f"{finding}, {pooling}"), flush=True)


if __name__ == "__main__":
    main()
