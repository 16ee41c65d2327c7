"""Halves of patients: does one half of a patient's fields find the other half first?

    python benchmarks/case_halves.py TABLE.csv --library FOLDER [--fields 12] [--white]
        [--reference FOLDER ...] [--differentials FILE.csv]

TABLE is a clinic's table of fields (`path,patient,case,diagnosis`, paths from its own folder). The
fields of each patient are dealt out into two halves by number. Half b is ingested twice more with
saturation and brightness shifted up, and down, by 15 % and hue by 15 % of 60 degrees, the step
between two neighbouring colours; and twice with hue shifted by 15 % of the whole circle. Then each
half asks for the most similar case among the other halves of all patients, both ways; only the
rule that leaves out the own patient is off, since the other half is the right answer. With folders
of labelled cells as reference (sub-folders are labels) the differential counts by their votes are
printed beside the experts' (`patient,cell,count`), in groups that both know.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter, defaultdict
from itertools import chain, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from search.cases.count import count_case
from search.cases.similar import similar_cases
from search.library.reviews import Reviews
from search.schemas.cases import CaseFilter, CaseQuestion, CountQuestion
from search.schemas.filters import Filter
from search.service import Service
from search.settings import Settings
from ui.cli.ingesting import Request, perform

SHIFT = 0.15
STEP, CIRCLE = 256 / 6, 256.0
"""What hue is shifted by a share of, of 256 in a whole circle."""
VARIANTS: dict[str, tuple[float, float]] = {
    "a": (0.0, STEP),
    "b": (0.0, STEP),
    "b up": (SHIFT, STEP),
    "b down": (-SHIFT, STEP),
    "b up, circle": (SHIFT, CIRCLE),
    "b down, circle": (-SHIFT, CIRCLE),
}
PAIRS = [pair for name in list(VARIANTS)[1:] for pair in (("a", name), (name, "a"))]
DISTANCES = ("max_sim", "mean", "composition", "prototypes", "vlad", "transport")
GROUPS = {
    "lymphoid": "lymphoblast lymphocyte atypical_lymphocyte ly lyt",
    "monocytic": "monoblast monocyte mo mon",
    "blasts and immature granulocytes": "myeloblast abnormal_promyelocyte promyelocyte myelocyte "
    "metamyelocyte pmy my mmy bla pmo myb mmz",
    "neutrophils": "neutrophil sne bne ngs ngb",
    "eosinophils": "eosinophil eo eos",
    "basophils": "basophil ba bas",
}


def shifted(path: Path, by: float, turn: float) -> Image.Image:
    """A picture with saturation and brightness moved by a share, and hue by that of `turn`."""
    hsv = np.asarray(Image.open(path).convert("RGB").convert("HSV"), np.float64)
    hsv[..., 0] = (hsv[..., 0] + by * turn) % 256
    hsv[..., 1:] = np.clip(hsv[..., 1:] * (1 + by), 0, 255)
    return Image.fromarray(hsv.round().astype(np.uint8), "HSV").convert("RGB")


def halves(table: Path, most: int, out: Path) -> Path:
    """A table for an ingest, with the shifted pictures beside it."""
    fields: dict[tuple[str, str, str], list[Path]] = defaultdict(list)
    for row in csv.DictReader(table.open()):
        key = (row["patient"], row["case"], row["diagnosis"])
        fields[key].append((table.parent / row["path"]).resolve())
    manifest = out / "halves.csv"
    with manifest.open("w", newline="") as handle:
        write = csv.writer(handle)
        write.writerow(["path", "patient", "case", "diagnosis", "case:half", "kind", "dataset"])
        numbered = ([(key, *one) for one in enumerate(fields[key][:most])] for key in fields)
        turns = chain.from_iterable(zip_longest(*numbered))  # a field of each patient, and so on
        for (patient, case, word), at, path in filter(None, turns):
            for name, (by, turn) in VARIANTS.items():
                if name[0] != "ab"[at % 2]:
                    continue
                used = path
                if by:
                    used = out / f"{name[2:].replace(', ', '-')}-{path.stem}.png"
                    shifted(path, by, turn).save(used)
                write.writerow([used, patient, f"{case} {name}", word, name, "smear", "halves"])
    return manifest


def ask(service: Service, half: str, others: str, distance: str, found: str) -> tuple[int, int]:
    """How many cases of one half find their own patient first among those of another."""
    context = service.context()
    cases = context.collection.cases
    right = total = 0
    for record in cases.all(CaseFilter(more={"half": (half,)})):
        answer = similar_cases(
            context,
            CaseQuestion(
                case=record.case,
                k=1,
                distance=distance,
                found=found,
                exclude=("item", "source", "case", "duplicate"),
                of_cases=CaseFilter(more={"half": (others,)}),
            ),
        )
        total += 1
        right += answer.cases[0].patients == (record.patient,)
    return right, total


def group_of(label: str) -> str | None:
    word = label.lower().replace(" ", "_")
    return next((name for name, words in GROUPS.items() if word in words.split()), None)


def differentials(service: Service, experts: Path, references: list[str]) -> None:
    """Shares by the votes of labelled cells beside those of the experts, in points."""
    collection = service.context().collection
    theirs: dict[str, Counter[str]] = defaultdict(Counter)
    for row in csv.DictReader(experts.open()):
        if group := group_of(row["cell"]):
            theirs[row["patient"]][group] += int(row["count"])
    errors = []
    for patient, counts in theirs.items():
        votes: Counter[str] = Counter()
        for half in ("a", "b"):
            question = CountQuestion(
                case=f"{patient} {half}", k=20, where=Filter(dataset=tuple(references)), cells=2000
            )
            for cell in count_case(collection, Reviews(collection.versions), question).cells:
                if cell.voted and (group := group_of(cell.voted)):
                    votes[group] += 1
        words = []
        for name in GROUPS:
            expert = 100 * counts[name] / counts.total()
            voted = 100 * votes[name] / max(1, votes.total())
            errors.append(abs(expert - voted))
            words.append(f"{name} {voted:.0f} ({expert:.0f})")
        print(f"{patient}: votes of {votes.total()} cells (experts'): {', '.join(words)}")
    print(f"mean absolute error {np.mean(errors):.1f} points")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("table", type=Path)
    words.add_argument("--library", type=Path, required=True)
    words.add_argument("--fields", type=int, default=1000)
    words.add_argument("--reference", type=Path, nargs="*", default=[])
    words.add_argument("--differentials", type=Path)
    words.add_argument("--white", action="store_true", help="ingest white cells alone")
    words.add_argument("--kept", action="store_true", help="ask the library as it is")
    given = words.parse_args()
    settings = Settings(library=given.library)
    with TemporaryDirectory() as folder:
        most = 0 if given.kept else given.fields
        manifest = halves(given.table, most, Path(folder))
        for paths in () if given.kept else ([manifest], *([path] for path in given.reference)):
            run = perform(Request(paths=paths, white=given.white), settings)
            print(run.report)
    service = Service.open(settings)
    try:
        print(f"encoder {service.context().collection.card.id}; right first, of the patients")
        print("| asked | among | cells | " + " | ".join(DISTANCES) + " |")
        for half, others in PAIRS:
            for found in ("all", "white"):
                told = [ask(service, half, others, one, found) for one in DISTANCES]
                figures = " | ".join(f"{right} of {total}" for right, total in told)
                print(f"| {half} | {others} | {found} | {figures} |", flush=True)
        if given.differentials:
            names = [path.resolve().name for path in given.reference]
            differentials(service, given.differentials, names)
    finally:
        service.close()


if __name__ == "__main__":
    main()
