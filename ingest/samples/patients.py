"""The invented patients of synthetic smears: each has a stain lot, a mix of cells, a site."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ingest.samples.blood_cells import RED
from ingest.samples.drawing import Ink
from ingest.samples.red_cells import Build

SITES = ("synthetic-lab-a", "synthetic-lab-b", "synthetic-lab-c")
# In the order of `Ink`: glass, red, nucleus, immature, pale, sky, grey, deep, fine, orange,
# violet, platelet.
STAINS: dict[str, Ink] = {
    "May-Gruenwald-Giemsa": Ink.from_colours(
        (
            *((252, 237, 215), (206, 170, 176), (72, 38, 122), (122, 78, 158), (236, 206, 220)),
            *((150, 178, 226), (172, 172, 206), (112, 136, 206), (176, 128, 176)),
            *((222, 130, 120), (76, 34, 110), (176, 140, 200)),
        )
    ),
    "Wright": Ink.from_colours(
        (
            *((246, 243, 240), (230, 168, 156), (84, 62, 148), (134, 104, 180), (240, 206, 206)),
            *((158, 190, 234), (184, 188, 212), (118, 148, 214), (190, 136, 166)),
            *((232, 134, 106), (84, 52, 128), (184, 150, 204)),
        )
    ),
    "Giemsa": Ink.from_colours(
        (
            *((226, 233, 236), (198, 156, 170), (96, 36, 124), (144, 76, 156), (224, 200, 222)),
            *((142, 166, 222), (166, 164, 202), (110, 122, 200), (166, 112, 172)),
            *((228, 124, 104), (92, 26, 104), (168, 128, 190)),
        )
    ),
}
"""Colours of each stain over white."""
SHARES: tuple[dict[str, float], ...] = (
    {"segmented neutrophil": 6, "lymphocyte": 3, "monocyte": 1, "eosinophil": 0.5},
    {"eosinophil": 4, "segmented neutrophil": 3, "lymphocyte": 2, "basophil": 0.6},
    {"lymphocyte": 6, "segmented neutrophil": 2, "monocyte": 1},
    {"blast": 5, "lymphocyte": 1, "segmented neutrophil": 1, "erythroblast": 1},
    {"band neutrophil": 4, "segmented neutrophil": 4, "monocyte": 1, "lymphocyte": 1},
    {"monocyte": 4, "basophil": 1.5, "segmented neutrophil": 3, "erythroblast": 1.5},
)
"""Mixes of white cells; a patient has one."""


@dataclass(frozen=True)
class Patient:
    """An invented patient: a stain lot, a mix of cells, a size of red cells."""

    id: str
    """`synthetic-patient-NN`."""
    number: int
    site: str
    stain: str
    ink: Ink
    """The stain as this patient's lot has it."""
    build: Build
    light: tuple[float, float]
    """Where in the field the lamp is brightest, as shares of width and height."""
    white: dict[str, float]
    """Relative frequency of each white cell."""
    red: dict[str, float]
    """Relative frequency of each red cell."""


@lru_cache(maxsize=256)
def patient(number: int) -> Patient:
    """The invented patient of this number (0, 1, ...); always the same one."""
    rng = np.random.default_rng([7, number])
    stain = tuple(STAINS)[number % len(STAINS)]
    balance = np.clip(rng.normal(1, 0.035, 3), 0.9, 1.1).astype(np.float32)
    ink = STAINS[stain].lot(float(rng.uniform(0.9, 1.12)), balance)
    build = Build(
        diameter=float(rng.uniform(6.8, 7.8)),
        variation=float(rng.uniform(0.03, 0.08)),
        pallor=float(rng.uniform(0.5, 0.82)),
    )
    variants = [name for name in RED if name != "red cell"]
    red = dict.fromkeys(RED, 0.006) | {"red cell": 1.0}
    red[variants[number % len(variants)]] = float(rng.uniform(0.25, 0.5))
    light = (float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.3, 0.7)))
    site = SITES[(number // 2) % len(SITES)]
    name = f"synthetic-patient-{number:02d}"
    mix = SHARES[number % len(SHARES)]
    return Patient(name, number, site, stain, ink, build, light, mix, red)
