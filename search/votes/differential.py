"""The differential count: leukocytes in percent, and what is counted beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
NEUTROPHILS = ("segmented neutrophil", "band neutrophil")
ENOUGH = 100
"""Leukocytes below which a percentage is too rough to be held to a range."""


@dataclass(frozen=True)
class Range:
    """Percent of leukocytes in the blood of healthy adults."""

    low: float
    high: float
    words: str


_RANGES = {
    "segmented neutrophil": Range(40, 80, "40–80, with bands"),
    "band neutrophil": Range(40, 80, "with segmented"),
    "lymphocyte": Range(20, 40, "20–40"),
    "monocyte": Range(2, 10, "2–10"),
    "eosinophil": Range(1, 6, "1–6"),
    "basophil": Range(0, 2, "0–2"),
}
"""Dacie and Lewis, Practical Haematology (12th edition, 2017), table 2-1; laboratories differ."""
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
        """Whether a leukocyte is rarer or more frequent than usual; not said of few cells."""
        usual = reference(label)
        if usual is None or self.total("leukocytes") < ENOUGH:
            return ""
        share = sum(self.percent(one) or 0.0 for one in self._alike(label))
        return "low" if share < usual.low else "high" if share > usual.high else ""

    def _alike(self, label: str) -> list[str]:
        """Labels that are held to one range together."""
        stage = stage_of(label)
        names = NEUTROPHILS if stage and stage.name in NEUTROPHILS else (stage and stage.name,)
        return [one for one in self.counts if (s := stage_of(one)) and s.name in names]
