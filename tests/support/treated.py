"""A library of treated and untreated patients, three cases each, whose blasts are counted."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
from random_library import random_service, thumbnail

from search.library.shards import Entry
from search.schemas.cases import CaseChange, CaseRecordsWanted
from search.schemas.items import Item, item_id
from search.service import Service

BLASTS = (6, 3, 1)
"""Of ten cells, in the three cases of a treated patient; of any other six in each."""


def treated_service(folder: Path) -> Service:
    """Twelve patients, the first six treated; `P00-c` comes first in time, `P00-a` last.

    Of every third only the records of the cases say who it is.
    """
    rng = np.random.default_rng(4)
    picture = thumbnail(rng)
    made, changes = [], []
    for who in range(12):
        for visit in range(3):
            name = f"P{who:02d}-{'cba'[visit]}"
            blasts = BLASTS[visit] if who < 6 else 6
            for cell in range(10):
                label = "blast" if cell < blasts else "normal"
                vector = np.eye(6)[0 if label == "blast" else 1] + 0.05 * rng.normal(size=6)
                item = Item(
                    id=item_id("made", f"{name}{cell}"),
                    dataset="made",
                    source=f"{who:010x}{visit:010x}{cell:012x}",
                    case=name,
                    patient=None if who % 3 == 1 else f"P{who:02d}",
                    label=label,
                )
                made.append(Entry(item, np.asarray(vector, np.float32), picture))
            day = date(2024, 1, 1) + timedelta(days=30 * visit)
            treatment = "treated" if who < 6 else "none"
            who_is = {"case": name, "patient": f"P{who:02d}"}
            changes.append(CaseChange(**who_is, date=day, treatment=treatment))
    service = random_service(folder, made)
    cells = service.collection("cells")
    cells.cases.change(CaseRecordsWanted(changes=tuple(changes)), cells.store, "test")
    return service
