"""Make a clinic's table from PBC: patients with planted findings, a few telling cells in each case.

    python benchmarks/planted.py OUT [--patients 52] [--cells 30] [--seed 0]

writes OUT/manifest.csv (path, patient, case, site), OUT/cases.csv (case, patient, diagnosis, date,
months, event) and OUT/planted.csv (path, case, label, telling). `hemaseek ingest OUT/manifest.csv`
takes the first; the labels of the cells are told to nobody. No cell is used twice.

A case is a blood smear: mostly segmented neutrophils and lymphocytes, some monocytes, few others.
A left shift adds bands and their precursors, an eosinophilia eosinophils, a lymphocytosis
lymphocytes. Sites differ in brightness and hue of their pictures, not in their patients.
"""

from __future__ import annotations

import argparse
import csv
import os
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import cv2
import numpy as np

NORMAL = {"SNE": 0.62, "LY": 0.25, "MO": 0.09, "EO": 0.02, "BA": 0.01, "BNE": 0.01}
FINDINGS: dict[str, dict[str, float]] = {
    "normal": {},
    "left shift": {"BNE": 0.5, "MMY": 0.3, "MY": 0.2},
    "eosinophilia": {"EO": 1.0},
    "lymphocytosis": {"LY": 1.0},
}
"""What is planted in place of normal cells."""
SHARE = (0.15, 0.35)
"""Share of a case's cells that is planted."""
SITES = {"north": (1.0, 0.0, 1.0), "south": (0.9, 6.0, 1.1), "west": (1.08, -6.0, 0.9)}
"""Gain of the brightness, turn of the hue in degrees, gain of the saturation."""


@dataclass(frozen=True)
class Cell:
    """One picture of a case."""

    source: Path
    label: str
    patient: str
    case: str
    site: str
    finding: str

    @property
    def telling(self) -> bool:
        """Whether it is of the finding's cells: planted, or one that was there anyway."""
        return self.label in FINDINGS[self.finding]


def draw(data: Path, patients: int, cells: int, seed: int, findings: list[str]) -> list[Cell]:
    """The cells of all cases: one or two cases for each patient, findings and sites in turn."""
    rng = np.random.default_rng(seed)
    left = {
        folder.name: [folder / one for one in rng.permutation([p.name for p in folder.iterdir()])]
        for folder in sorted((data / "pbc" / "cells").iterdir())
    }

    def take(shares: dict[str, float]) -> tuple[Path, str]:
        there = {label: share for label, share in shares.items() if left[label]}
        if not there:
            raise SystemExit(
                f"PBC has no {', '.join(shares)} left; ask for fewer patients or cells"
            )
        labels, weights = list(there), np.array(list(there.values()))
        label = labels[rng.choice(len(labels), p=weights / weights.sum())]
        return left[label].pop(), label

    drawn = []
    for at in range(patients):
        finding, site = findings[at % len(findings)], list(SITES)[at // len(findings) % len(SITES)]
        for visit in range(1 + int(rng.random() < 0.3)):
            share = rng.uniform(*SHARE) if FINDINGS[finding] else 0.0
            telling = rng.permutation(cells) < round(share * cells)
            for one in telling:
                source, label = take(FINDINGS[finding] if one else NORMAL)
                patient = f"P{at:03d}"
                drawn.append(Cell(source, label, patient, f"{patient}-{visit + 1}", site, finding))
    return drawn


def changed(picture: np.ndarray, site: str) -> np.ndarray:
    """A picture (blue first) as a site's stain and camera would have it."""
    gain, turn, saturation = SITES[site]
    hsv = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_BGR2HSV)
    hsv[..., 0] = (hsv[..., 0] + turn) % 360
    hsv[..., 1] = (hsv[..., 1] * saturation).clip(0, 1)
    hsv[..., 2] = (hsv[..., 2] * gain).clip(0, 1)
    return (cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR) * 255).round().astype(np.uint8)


def write(out: Path, cells: list[Cell], seed: int) -> None:
    """The pictures and the three tables."""
    rng = np.random.default_rng(seed + 1)
    (out / "cells").mkdir(parents=True, exist_ok=True)
    images, planted, cases = [], [], {}
    for at, cell in enumerate(cells):
        path = Path("cells") / f"{at:06d}.png"
        picture = cv2.imread(str(cell.source))
        cv2.imwrite(str(out / path), changed(picture, cell.site))
        images.append([path, cell.patient, cell.case, cell.site])
        planted.append([path, cell.case, cell.label, int(cell.telling)])
        cases.setdefault(cell.case, []).append(cell)
    table(out / "manifest.csv", ["path", "patient", "case", "site"], images)
    table(out / "planted.csv", ["path", "case", "label", "telling"], planted)
    rows = []
    for name, own in cases.items():
        burden = np.mean([cell.telling for cell in own])
        months = rng.exponential(40 * np.exp(-8 * burden))
        censor = rng.uniform(6, 60)
        day = date(2023, 1, 1) + timedelta(days=int(rng.integers(0, 700)))
        time, event = min(months, censor), months <= censor
        rows.append(
            [name, own[0].patient, own[0].finding, day, f"{time:.1f}", "yes" if event else "no"]
        )
    head = ["case", "patient", "diagnosis", "date", "months", "event"]
    table(out / "cases.csv", head, sorted(rows))


def table(path: Path, head: list[str], rows: list[list[object]]) -> None:
    """A CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--patients", type=int, default=52)
    parser.add_argument("--cells", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", nargs="+", default=list(FINDINGS), choices=list(FINDINGS))
    given = parser.parse_args()
    cells = draw(
        Path(os.environ.get("HEMASEEK_DATA", "../shared/data")),
        given.patients,
        given.cells,
        given.seed,
        given.findings,
    )
    write(given.out, cells, given.seed)
    print(f"{given.patients} patients, {len(cells)} cells in {given.out}")


if __name__ == "__main__":
    main()
