"""The cell finder on real smear fields: recall and precision per class, scale, seconds.

Boxes match at IoU >= 0.5, one to one (BCCD, Aslan); Chula's points match a red cell's centre
within half its radius. Rules were tuned on the fields with even numbers; by default the fields
with odd numbers are reported. One set of rules for all pictures. The fields with most misses and
most boxes beyond the labels are drawn on contact sheets under reports/finder/. With `--hue` the
hue of every picture is turned by so many degrees first, as augmentations of colour turn it.

    python benchmarks/finder.py [--half odd|even] [--every 1] [--finder classical] [--hue 54]
    python benchmarks/finder.py --photographs
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw
from scipy.optimize import linear_sum_assignment

from encoder.contract import RGB
from encoder.image import read_rgb
from ingest.smears.cells import KINDS, Found
from ingest.smears.finders import finder

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("HEMASEEK_DATA", ROOT / ".." / "shared" / "data"))
REVIEWED = Path(__file__).parent / "reviewed_red_cells.csv"
SHEETS = ROOT / "reports" / "finder"
NAMES = {"RBC": "red", "WBC": "white", "Platelets": "platelet", "rbc": "red", "wbc": "white"}
CHULA_UM_PER_PX = 0.19
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass
class Labelled:
    name: str
    number: int
    path: Path
    boxes: dict[str, list[Box]] = field(default_factory=lambda: defaultdict(list))
    points: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Result:
    labelled: Labelled
    image: RGB
    found: Found
    seconds: float
    missed: list[Box] = field(default_factory=list)
    beyond: list[Box] = field(default_factory=list)


def bccd() -> Iterator[Labelled]:
    for path in sorted((DATA / "bccd" / "JPEGImages").glob("*.jpg")):
        one = Labelled("BCCD", int(path.stem.split("_")[1]), path)
        tree = ElementTree.parse(DATA / "bccd" / "Annotations" / f"{path.stem}.xml")
        for mark in tree.iter("object"):
            x0, y0, x1, y1 = (
                float(mark.findtext(f"bndbox/{side}", ""))
                for side in ("xmin", "ymin", "xmax", "ymax")
            )
            if x1 > x0 and y1 > y0:  # two labels have no size
                one.boxes[NAMES[mark.findtext("name", "")]].append((x0, y0, x1, y1))
        yield one


def aslan() -> Iterator[Labelled]:
    rows = defaultdict(list)
    with (DATA / "aslan" / "annotations.csv").open(newline="") as handle:
        for row in csv.DictReader(handle):
            rows[row["image"]].append(row)
    for name, marks in sorted(rows.items()):
        path = DATA / "aslan" / "images" / name
        one = Labelled("Aslan", int(path.stem.split("-")[1]), path)
        for row in marks:
            x0, y0, x1, y1 = (float(row[side]) * 256 for side in ("xmin", "ymin", "xmax", "ymax"))
            one.boxes[NAMES[row["label"]]].append((x0, y0, x1, y1))
        yield one


def chula() -> Iterator[Labelled]:
    for path in sorted((DATA / "chula" / "Dataset").glob("*.jpg"), key=lambda p: int(p.stem)):
        one = Labelled("Chula", int(path.stem), path)
        for line in (DATA / "chula" / "Label" / f"{path.stem}.txt").read_text().splitlines():
            if line.strip():
                x, y, _ = line.split()
                one.points.append((float(x), float(y)))
        yield one


def attri() -> Iterator[Labelled]:
    """Fields of patient 27, some of whose white cells have boxes."""
    rows = defaultdict(list)
    with (DATA / "attri" / "cells_27.csv").open(newline="") as handle:
        for row in csv.DictReader(handle):
            rows[row["path"]].append([float(row[side]) for side in ("x", "y", "width", "height")])
    for name, marks in sorted(rows.items()):
        one = Labelled("attri", int(Path(name).stem.split("_")[1]), DATA / "attri" / name)
        one.boxes["white"] += [(x, y, x + w, y + h) for x, y, w, h in marks]
        yield one


def turned(image: RGB, degrees: float) -> RGB:
    """A picture with its hue turned: of HSV, with saturation and value as they are."""
    hsv = np.array(Image.fromarray(image).convert("HSV"))
    hsv[..., 0] = (hsv[..., 0].astype(np.int64) + round(degrees / 360 * 256)) % 256
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


def corners(found: Found, kind: str) -> list[Box]:
    boxes = [cell.bbox for cell in found.cells if cell.kind == kind]
    return [(x, y, x + w, y + h) for x, y, w, h in boxes]


def ious(left: list[Box], right: list[Box]) -> np.ndarray:
    a, b = (np.array(boxes, float).reshape(-1, 4) for boxes in (left, right))
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    common = sides.clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return common / (areas[0][:, None] + areas[1][None] - common)


def pairs(fits: np.ndarray, worth: np.ndarray) -> list[tuple[int, int]]:
    """The one-to-one matching with most pairs that fit, then the most worth."""
    if not fits.size:
        return []
    rows, columns = linear_sum_assignment(-np.where(fits, 1 + 0.001 * worth, 0))
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if fits[r, c]]


def near(points: list[tuple[float, float]], boxes: list[Box]) -> np.ndarray:
    """Whether each point lies within half the radius of each box's middle."""
    p, b = np.array(points, float).reshape(-1, 2), np.array(boxes, float).reshape(-1, 4)
    middle, sides = (b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]
    radius = np.sqrt(sides.prod(axis=1)) / 2
    away = np.linalg.norm(p[:, None] - middle[None], axis=2)
    return away <= 0.5 * radius[None]


def score(result: Result, counts: dict[tuple[str, str], Counter[str]]) -> None:
    one, found = result.labelled, result.found
    for kind in KINDS:
        boxes = corners(found, kind)
        if one.points and kind == "red":
            fits = near(one.points, boxes)
            matched = pairs(fits, fits.astype(float))
            marks = [(x - 3, y - 3, x + 3, y + 3) for x, y in one.points]
        elif one.points:
            continue
        else:
            marks = one.boxes[kind]
            overlap = ious(marks, boxes)
            matched = pairs(overlap >= 0.5, overlap)
        tally = counts[one.name, kind]
        tally.update(labelled=len(marks), found=len(boxes), matched=len(matched))
        hit, used = {r for r, _ in matched}, {c for _, c in matched}
        result.missed += [mark for at, mark in enumerate(marks) if at not in hit]
        result.beyond += [box for at, box in enumerate(boxes) if at not in used]


def reviewed() -> dict[int, dict[str, list[Box]]]:
    """What was judged by eye on BCCD fields: by field and verdict, boxes that no label has.

    16 odd fields, drawn by `numpy.random.default_rng(2026)` from the 186. In each, every red box
    of the finder of 2026-11-26 without a label was looked at, enlarged twice, and called `cell`,
    `no cell` (dirt, a platelet, two cells in one box, a second box on one cell) or `unsure`
    (inside of piles); cells that can be seen and had neither box nor label were added by hand,
    roughly. Judged once, by no hematologist.
    """
    said: dict[int, dict[str, list[Box]]] = defaultdict(lambda: defaultdict(list))
    with REVIEWED.open(newline="") as handle:
        for row in csv.DictReader(handle):
            box = tuple(float(row[side]) for side in ("left", "top", "right", "bottom"))
            said[int(row["field"])][row["said"]].append(box)  # type: ignore[arg-type]
    return said


def against_review(results: list[Result]) -> None:
    """Red cells of the reviewed fields: precision and recall with intervals over fields."""
    said, tallies = reviewed(), []
    for result in results:
        number = result.labelled.number
        if result.labelled.name != "BCCD" or number not in said:
            continue
        boxes = corners(result.found, "red")
        truth = [
            *result.labelled.boxes["red"],
            *said[number]["cell"],
            *said[number]["cell without a box"],
        ]
        overlap = ious(truth, boxes)
        matched = pairs(overlap >= 0.5, overlap)
        used = {c for _, c in matched}
        rest = [box for at, box in enumerate(boxes) if at not in used]
        overlap = ious(said[number]["unsure"], rest)
        unsure = len(pairs(overlap >= 0.5, overlap))
        labels = len(result.labelled.boxes["red"])
        by_label = sum(1 for r, _ in matched if r < labels)
        tallies.append((len(boxes), len(matched), unsure, len(truth), by_label))
    if not tallies:
        return
    table = np.array(tallies, float)
    rng = np.random.default_rng(0)
    drawn = table[rng.integers(0, len(table), (10_000, len(table)))].sum(axis=1)
    total = table.sum(axis=0)
    boxes_n, right_n, unsure_n, _, by_label_n = total
    print(
        f"\nRed cells of {len(table)} reviewed BCCD fields: {boxes_n:.0f} boxes, of which "
        f"{by_label_n:.0f} match a label, {right_n - by_label_n:.0f} a cell without one, "
        f"{unsure_n:.0f} are unsure"
    )
    for name, right, of in (
        ("precision, unsure ones wrong", (1,), 0),
        ("precision, unsure ones right", (1, 2), 0),
        ("recall of all cells that can be seen", (1,), 3),
    ):
        value = sum(total[at] for at in right) / total[of]
        low, high = np.percentile(sum(drawn[:, at] for at in right) / drawn[:, of], [2.5, 97.5])
        print(f"- {name}: {value:.3f} (95 % over fields: {low:.3f} to {high:.3f})")


def sheet(results: list[Result], path: Path) -> None:
    """Labels black, boxes found red / blue / green, missed labels yellow and thick."""
    colours = {"red": (220, 0, 0), "white": (0, 0, 255), "platelet": (0, 150, 0)}
    page = Image.new("RGB", (3 * 640, 480 * ((len(results) + 2) // 3)), (255, 255, 255))
    for at, result in enumerate(results):
        height, width = result.image.shape[:2]
        zoom = min(640 / width, 480 / height)
        tile = Image.fromarray(result.image).resize((int(width * zoom), int(height * zoom)))
        pen = ImageDraw.Draw(tile)
        for marks in result.labelled.boxes.values():
            for mark in marks:
                pen.rectangle([side * zoom for side in mark], outline=(0, 0, 0))
        for kind, colour in colours.items():
            for box in corners(result.found, kind):
                pen.rectangle([side * zoom for side in box], outline=colour)
        for mark in result.missed:
            pen.rectangle([side * zoom for side in mark], outline=(255, 220, 0), width=2)
        said = f"{result.labelled.name} {result.labelled.number}: missed {len(result.missed)}"
        pen.text((4, 4), f"{said}, beyond the labels {len(result.beyond)}", fill=(0, 0, 0))
        page.paste(tile, ((at % 3) * 640, (at // 3) * 480))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path)


def table(counts: dict[tuple[str, str], Counter[str]]) -> None:
    print("| Set | Class | Labelled | Found | Recall | Precision against the labels |")
    print("|---|---|---|---|---|---|")
    for (name, kind), n in counts.items():
        if n["labelled"]:
            recall, precision = n["matched"] / n["labelled"], n["matched"] / max(n["found"], 1)
            print(
                f"| {name} | {kind} | {n['labelled']} | {n['found']} | {recall:.3f} "
                f"| {precision:.3f} |"
            )


def scales(results: list[Result]) -> None:
    known = [
        result
        for result in results
        if result.labelled.name == "Chula"
        and 51 <= result.labelled.number <= 675
        and result.labelled.number != 252
    ]
    got = [result.found.estimate for result in known if result.found.estimate is not None]
    if not got:
        return
    values = np.array([one.um_per_px for one in got])
    low, middle, high = np.percentile(values, [5, 50, 95])
    off = np.abs(values / CHULA_UM_PER_PX - 1)
    print(
        f"\nScale, Chula fields 51-675 (known {CHULA_UM_PER_PX}): {len(got)} of {len(known)} "
        f"fields with an estimate, median {middle:.3f} um/px, 5 % to 95 % {low:.3f} to {high:.3f}; "
        f"within 10 % of the known in {np.mean(off <= 0.1):.0%}, within 20 % in "
        f"{np.mean(off <= 0.2):.0%}; median spread within a field "
        f"{np.median([one.spread for one in got]):.3f}"
    )


def photographs() -> None:
    """A 4000 x 3000 photograph of large cells, and one of as many small cells as fit."""
    few = Image.open(next(iter((DATA / "bccd" / "JPEGImages").glob("*.jpg")))).convert("RGB")
    many = Image.open(DATA / "chula" / "Dataset" / "274.jpg").convert("RGB")
    for name, image in (
        ("large cells", np.asarray(few.resize((4000, 3000)))),
        ("small cells", np.tile(np.asarray(many), (7, 7, 1))[:3000, :4000]),
    ):
        start = time.process_time()
        found = finder().find(np.ascontiguousarray(image))
        seconds = time.process_time() - start
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"4000 x 3000, {name}: {len(found.cells)} cells, {seconds:.1f} CPU s, "
            f"process at most {most:.0f} MB"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--half", choices=("odd", "even"), default="odd")
    parser.add_argument("--every", type=int, default=1, help="only every n-th field")
    parser.add_argument("--finder", default="classical")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--sets", default="BCCD,Aslan,Chula,attri")
    parser.add_argument("--hue", type=float, default=0.0, help="degrees by which hue is turned")
    parser.add_argument("--photographs", action="store_true", help="only time large pictures")
    wanted = parser.parse_args()
    if wanted.photographs:
        photographs()
        return
    find = finder(wanted.finder, wanted.weights)
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    results: list[Result] = []
    for source in (bccd, aslan, chula, attri):
        half = [one for one in source() if one.number % 2 == (wanted.half == "odd")]
        for one in half[:: wanted.every]:
            if one.name not in wanted.sets.split(","):
                continue
            image = read_rgb(one.path.read_bytes(), name=one.path.name)
            image = turned(image, wanted.hue) if wanted.hue else image
            start = time.process_time()
            found = find.find(image)
            results.append(Result(one, image, found, time.process_time() - start))
            score(results[-1], counts)
    print(f"Finder {find.id}, {wanted.half} fields, {len(results)} pictures\n")
    table(counts)
    against_review(results)
    scales(results)
    for name in dict.fromkeys(result.labelled.name for result in results):
        mine = [result for result in results if result.labelled.name == name]
        taken = np.array([result.seconds for result in mine])
        print(
            f"CPU seconds per field, {name}: median {np.median(taken):.2f}, most {taken.max():.2f}"
        )
        sheet(sorted(mine, key=lambda r: -len(r.missed))[:12], SHEETS / f"{name}-missed.png")
        sheet(sorted(mine, key=lambda r: -len(r.beyond))[:12], SHEETS / f"{name}-beyond.png")
        sheet(mine[:: max(1, len(mine) // 12)][:12], SHEETS / f"{name}-any.png")
    print(f"\nContact sheets: {SHEETS}")


if __name__ == "__main__":
    main()
