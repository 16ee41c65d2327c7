"""Ten thousand random questions about cases: is the own patient ever in an answer?

    python benchmarks/exclusion.py [--cases 10000] [--libraries 20] [--seed 0]

Random libraries of 60 items (six patients, cases, sources; some without a patient, some pictures
twice). In each library the items of one patient do not say whose they are, and the records of
the cases do. Questions start from stored cases, patients and sources, from items, and from vectors
with the patient named, by every distance, with and without conditions on cells. Prints how many
were asked, how many cases were shown, and how many answers had the own patient; exits with 1
if any had. As a check of the check it asks again with the rule off.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from random_library import random_entries, random_service
from random_questions import patients_of, random_case

from search.cases.similar import similar_cases
from search.errors import BadQuestion, NoSuchCase
from search.library.shards import Entry
from search.schemas.cases import CaseChange, CaseRecordsWanted
from search.schemas.questions import RELATIONS
from search.service import Service

RECORDED = "P0"
"""Patient that records alone know."""
OFF = tuple(one for one in RELATIONS if one != "patient")


def library(folder: Path, rng: np.random.Generator) -> tuple[Service, list[Entry]]:
    """A random library, and its entries as they would be if every item named its patient."""
    entries = random_entries(rng, 60)
    silent = [
        replace(one, item=one.item.model_copy(update={"patient": None}))
        if one.item.patient == RECORDED and one.item.case is not None
        else one
        for one in entries
    ]
    service = random_service(folder, silent)
    cells = service.collection("cells")
    hidden = sorted({e.item.case for e in entries if e.item.patient == RECORDED and e.item.case})
    changes = tuple(CaseChange(case=case, patient=RECORDED) for case in hidden)
    if changes:
        cells.cases.change(CaseRecordsWanted(changes=changes), cells.store, "exclusion")
    return service, entries


def asked(service: Service, entries: list[Entry], rng: np.random.Generator, n: int) -> np.ndarray:
    """Of n questions: asked, cases shown, own patient found, and found with the rule off."""
    found = np.zeros(4, int)
    while found[0] < n:
        question, patients = random_case(rng, entries)
        try:
            answer = similar_cases(service.context(), question)
            off = similar_cases(service.context(), question.model_copy(update={"exclude": OFF}))
        except (BadQuestion, NoSuchCase):  # of a patient that records alone know there are no items
            continue
        if patients == {RECORDED} and question.items:  # also items without a case
            cases = {e.item.case for e in entries if e.item.id in question.items}
            patients = set() if cases == {None} else patients
        own = [bool(patients & patients_of(one)) for one in (answer, off)]
        found += (1, len(answer.cases), *own)
    return found


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, usual in (("cases", 10_000), ("libraries", 20), ("seed", 0)):
        words.add_argument(f"--{name}", type=int, default=usual)
    given = words.parse_args()
    rng, total = np.random.default_rng(given.seed), np.zeros(4, int)
    for at in range(given.libraries):
        with TemporaryDirectory() as folder:
            service, entries = library(Path(folder), rng)
            try:
                total += asked(service, entries, rng, given.cases // given.libraries)
            finally:
                service.close()
        print(
            f"{at + 1} of {given.libraries} libraries: {total[0]:,} asked, the own patient in "
            f"{total[2]} answers; with the rule off in {total[3]:,}",
            flush=True,
        )
    print(
        f"{total[0]:,} questions about cases, {total[1]:,} cases shown: the own patient was in "
        f"{total[2]} answers; with the rule off it is in {total[3]:,}"
    )
    sys.exit(int(total[2] > 0))


if __name__ == "__main__":
    main()
