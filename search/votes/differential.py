"""The differential count: leukocytes in percent, and what is counted beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from search.votes.lineage import plain, stage_of

Part = Literal["leukocytes", "nucleated red cells", "red cells", "platelets", "other"]
LEUKOCYTES = {"stem", "neutrophil", "eosinophil", "basophil", "monocyte", "lymphocyte"}
"""Lineages of `search.votes.lineage.STAGES`; plasma and hairy cells are lymphocytes there."""
UNNAMED = {"wbc", "white blood cell", "white cell", "leukocyte", "leucocyte"}
"""Labels of leukocytes that say no more."""
RED = {
    "macrocyte",
    "microcyte",
    "spherocyte",
    "target cell",
    "stomatocyte",
    "ovalocyte",
    "elliptocyte",
    "teardrop",
    "burr cell",
    "schistocyte",
    "hypochromia",
}
"""Labels of forms of red cells, in the words of `lineage.plain`."""
TOGETHER = (
    ("segmented neutrophil", "band neutrophil"),
    ("promyelocyte", "myelocyte", "metamyelocyte"),
)
"""Stages that are held to one range together: neutrophils, and immature granulocytes."""
ENOUGH = 100
"""Leukocytes below which a percentage is too rough to be held to a range."""


@dataclass(frozen=True)
class Range:
    """Percent of leukocytes in the blood of healthy adults."""

    low: float
    high: float
    words: str


_IMMATURE = Range(0, 0.9, "0–0.9 together")
_RANGES = {
    "segmented neutrophil": Range(40, 75, "40–75, with bands"),
    "band neutrophil": Range(40, 75, "with segmented"),
    "lymphocyte": Range(12, 44, "12–44"),
    "monocyte": Range(4, 9, "4–9"),
    "eosinophil": Range(0, 5.5, "0–5.5"),
    "basophil": Range(0, 1, "0–1"),
    **dict.fromkeys(TOGETHER[1], _IMMATURE),
}
"""Of people from 11 years on: Davis's manual of laboratory tests, Complete Blood Count, WBC Count
and Differential (labdxtest.com, automated analysers). Laboratories differ: MedlinePlus 003657 has
neutrophils 40-60 with bands 0-3, lymphocytes 20-40, monocytes 2-8, eosinophils 1-4, basophils
0.5-1."""
NONE = Range(0, 0, "none")


def part_of(label: str) -> Part:
    """Where a label is counted; `other` for what is no blood cell that is known here."""
    words = plain(label)
    if words in UNNAMED or words.removesuffix("s") in UNNAMED:
        return "leukocytes"
    if words in RED or words.removesuffix("s") in RED:
        return "red cells"
    stage = stage_of(label)
    if stage is None:
        return "other"
    if stage.lineage in LEUKOCYTES:
        return "leukocytes"
    if stage.lineage == "erythroid":
        return "red cells" if stage.maturity == "mature" else "nucleated red cells"
    return "platelets" if stage.name == "platelet" else "other"


def reference(label: str) -> Range | None:
    """What is usual of a leukocyte in the blood of healthy adults; `None` where that is unknown."""
    stage = stage_of(label)
    if stage is None or part_of(label) != "leukocytes":
        return None
    return _RANGES.get(stage.name) or (NONE if stage.maturity != "mature" else None)


@dataclass(frozen=True)
class Differential:
    """One count of the cells of a case or a field."""

    counts: Mapping[str, int]
    """Cells by label."""

    def total(self, part: Part) -> int:
        """How many cells are of a part."""
        return sum(n for label, n in self.counts.items() if part_of(label) == part)

    def percent(self, label: str) -> float | None:
        """Of a leukocyte among all leukocytes; `None` where there are none."""
        whole = self.total("leukocytes")
        return 100 * self.counts.get(label, 0) / whole if whole else None

    @property
    def red_per_100(self) -> float | None:
        """Nucleated red cells for each 100 leukocytes; `None` where there are no leukocytes."""
        whole = self.total("leukocytes")
        return 100 * self.total("nucleated red cells") / whole if whole else None

    def outside(self, label: str) -> Literal["", "low", "high"]:
        """Whether a leukocyte is rarer or more frequent than usual.

        Said only of enough leukocytes, and where counting so few cells cannot explain it: the 95 %
        interval of the share (Wilson) lies outside the range.
        """
        usual, whole = reference(label), self.total("leukocytes")
        if usual is None or whole < ENOUGH:
            return ""
        low, high = share_interval(sum(self.counts[one] for one in self._alike(label)), whole)
        return "low" if high < usual.low else "high" if low > usual.high else ""

    def _alike(self, label: str) -> list[str]:
        """Labels that are held to one range together."""
        stage = stage_of(label)
        own = (stage.name,) if stage else ()
        names = next((group for group in TOGETHER if stage and stage.name in group), own)
        return [one for one in self.counts if (s := stage_of(one)) and s.name in names]


def share_interval(some: int, whole: int) -> tuple[float, float]:
    """The 95 % interval of a share of counted cells, in percent.

    Wilson, J Am Stat Assoc 22 (1927) 209; Rümke's tables of the differential count say the same.
    """
    z, share = 1.96, some / whole
    middle = share + z * z / (2 * whole)
    reach = z * sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    scale = 100 / (1 + z * z / whole)
    return (scale * (middle - reach) if some else 0.0, scale * (middle + reach))
