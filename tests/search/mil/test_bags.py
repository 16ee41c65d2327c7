"""The bags that case models see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from random_library import random_entries, random_service

from search.mil.bags import patient_of, stored_bags
from search.schemas.cases import CaseChange, CaseRecordsWanted
from search.schemas.filters import Filter


def test_cases_that_records_call_those_of_one_patient_are_of_that_patient(tmp_path: Path) -> None:
    entries = [e for e in random_entries(np.random.default_rng(5), 30, 3) if e.item.case]
    bare = [replace(e, item=e.item.model_copy(update={"patient": None})) for e in entries]
    service = random_service(tmp_path, bare)
    try:
        cells = service.collection("cells")
        names = sorted({str(e.item.case) for e in entries})
        wanted = CaseRecordsWanted(
            changes=tuple(CaseChange(case=name, patient="X") for name in names[:2])
        )
        cells.cases.change(wanted, cells.store, "key")
        bags = stored_bags(cells, "case", Filter(), 10)
    finally:
        service.close()

    assert {patient_of(bags[name]) for name in names[:2]} == {"X"}
    assert "X" not in {patient_of(bags[name]) for name in names[2:]}
