"""Make a table of cases from Chula RBC-12: each smear field is a case, named after its red cells.

    python benchmarks/chula_cases.py OUT [--cells 12] [--fields 232-675] [--block 10]

writes OUT/manifest.csv (path, patient, case) and OUT/cases.csv (case, patient, diagnosis) with
crops of 70 pixels around points drawn from each field; the types of the cells are told to nobody.
The diagnosis is the most frequent type of red cell that is not normal, where it is a third of the
field's cells and at least five, and of five fields at least. All fields are of one batch (one
microscope and scale bar: a type that fills another batch is known by its background). Patients are
not published; fields whose numbers lie in one block of ten count as one, so that pictures taken one
after the other never answer each other.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from planted import table

from ingest.layouts.published import CHULA_PX, CHULA_TYPES

NORMAL, UNKNOWN = 0, 10
SHARE, LEAST, FIELDS = 0.3, 5, 5
"""Of a field's cells; cells of the type; fields of a diagnosis."""


def diagnosis(types: list[int]) -> int | None:
    """The type that a field is named after; `None` for a mixture."""
    counts = Counter(one for one in types if one not in (NORMAL, UNKNOWN))
    if not counts:
        return None
    kind, n = counts.most_common(1)[0]
    return kind if n >= LEAST and n >= SHARE * len(types) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--fields", default="232-675")
    parser.add_argument("--block", type=int, default=10)
    given = parser.parse_args()
    low, high = map(int, given.fields.split("-"))
    data = Path(os.environ.get("HEMASEEK_DATA", "../shared/data")) / "chula"
    points = {}
    for number in range(low, high + 1):
        path = data / "Label" / f"{number}.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        points[number] = [tuple(map(int, line.split())) for line in lines if line.strip()]
    named = {number: diagnosis([kind for _, _, kind in own]) for number, own in points.items()}
    often = Counter(named.values())
    (given.out / "cells").mkdir(parents=True, exist_ok=True)
    rng, images, cases = np.random.default_rng(0), [], []
    for number, kind in named.items():
        if kind is None or often[kind] < FIELDS:
            continue
        case, patient = f"field {number}", f"block {number // given.block}"
        cases.append([case, patient, CHULA_TYPES[kind]])
        picture = Image.open(data / "Dataset" / f"{number}.jpg").convert("RGB")
        for at in rng.permutation(len(points[number]))[: given.cells]:
            x, y, _ = points[number][at]
            left, top = x - CHULA_PX // 2, y - CHULA_PX // 2
            name = f"cells/{number}-{at}.png"
            picture.crop((left, top, left + CHULA_PX, top + CHULA_PX)).save(given.out / name)
            images.append([name, patient, case])
    table(given.out / "manifest.csv", ["path", "patient", "case"], images)
    table(given.out / "cases.csv", ["case", "patient", "diagnosis"], cases)
    print(f"{len(cases)} fields, {len(images)} cells, {Counter(one[2] for one in cases)}")


if __name__ == "__main__":
    main()
