"""How blood cells mature: a graph of stages, and how far apart two labels are on it."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from search.schemas.answers import LineageSpread, StageShare, Vote

Maturity = Literal["blast", "immature", "mature"]


@dataclass(frozen=True)
class Stage:
    """One stage of maturation."""

    name: str
    """Its usual English name."""
    lineage: str
    """Where it belongs."""
    after: str | None
    """The stage that it matures from; `None` for the root."""
    maturity: Maturity
    """Blasts and their equivalents, what lies between, and what circulates in health."""
    words: tuple[str, ...] = ()
    """Label words of published sets that mean it, besides the name."""


STAGES: tuple[Stage, ...] = (
    Stage("blast", "stem", None, "blast", ("BL", "BLA", "BLAST", "blast cell", "stem cell")),
    Stage("myeloblast", "neutrophil", "blast", "blast", ("MYO", "MYBL")),
    Stage("promyelocyte", "neutrophil", "myeloblast", "immature", ("PMY", "PMO", "PRO", "PMB")),
    Stage("myelocyte", "neutrophil", "promyelocyte", "immature", ("MY", "MYB", "MYC")),
    Stage("metamyelocyte", "neutrophil", "myelocyte", "immature", ("MMY", "MMZ", "META")),
    Stage(
        "band neutrophil",
        "neutrophil",
        "metamyelocyte",
        "mature",
        ("BNE", "NGB", "BAND", "band cell", "neutrophil band"),
    ),
    Stage(
        "segmented neutrophil",
        "neutrophil",
        "band neutrophil",
        "mature",
        ("SNE", "NGS", "SEG", "NEU", "NE", "NEUTROPHIL", "neutrophil segmented", "PMN"),
    ),
    Stage("eosinophil", "eosinophil", "myelocyte", "mature", ("EO", "EOS", "ABE")),
    Stage("basophil", "basophil", "myelocyte", "mature", ("BA", "BAS", "BASO")),
    Stage("monoblast", "monocyte", "blast", "blast", ("MOB",)),
    Stage("promonocyte", "monocyte", "monoblast", "blast", ("PMON",)),
    Stage("monocyte", "monocyte", "promonocyte", "mature", ("MO", "MON", "MONO")),
    Stage("lymphoblast", "lymphocyte", "blast", "blast", ("LYB",)),
    Stage(
        "prolymphocyte",
        "lymphocyte",
        "lymphoblast",
        "immature",
        ("PLY", "LYI", "immature lymphocyte"),
    ),
    Stage(
        "lymphocyte",
        "lymphocyte",
        "prolymphocyte",
        "mature",
        ("LY", "LYT", "LYM", "typical lymphocyte", "small lymphocyte", "large lymphocyte"),
    ),
    Stage(
        "reactive lymphocyte",
        "lymphocyte",
        "lymphocyte",
        "mature",
        ("VLY", "LYA", "RLY", "atypical lymphocyte", "variant lymphocyte"),
    ),
    Stage("hairy cell", "lymphocyte", "lymphocyte", "mature", ("HAC", "HC")),
    Stage("plasma cell", "lymphocyte", "lymphocyte", "mature", ("PC", "PLM", "PLASMA")),
    Stage(
        "proerythroblast",
        "erythroid",
        "blast",
        "blast",
        ("PEB", "pronormoblast", "proerythroblasts"),
    ),
    Stage(
        "basophilic erythroblast",
        "erythroid",
        "proerythroblast",
        "immature",
        ("basophilic normoblast",),
    ),
    Stage(
        "erythroblast",
        "erythroid",
        "basophilic erythroblast",
        "immature",
        (
            "ERB",
            "EBO",
            "NRBC",
            "normoblast",
            "nucleated red cell",
            "nucleated red blood cell",
            "polychromatic erythroblast",
        ),
    ),
    Stage(
        "orthochromatic erythroblast",
        "erythroid",
        "erythroblast",
        "immature",
        ("orthochromatic normoblast",),
    ),
    Stage(
        "reticulocyte",
        "erythroid",
        "orthochromatic erythroblast",
        "mature",
        ("RET", "polychromatic red cell"),
    ),
    Stage(
        "red cell",
        "erythroid",
        "reticulocyte",
        "mature",
        ("RBC", "erythrocyte", "red blood cell", "normal red cell"),
    ),
    Stage("megakaryoblast", "megakaryocyte", "blast", "blast"),
    Stage("megakaryocyte", "megakaryocyte", "megakaryoblast", "immature", ("MEG", "MK")),
    Stage(
        "platelet",
        "megakaryocyte",
        "megakaryocyte",
        "mature",
        ("PLATELET", "PLT", "thrombocyte", "giant platelet", "large platelet"),
    ),
)
"""The graph: each stage names the one before it. Where published sets disagree on a short code
(`MYB` is a myelocyte, `MYO` a myeloblast), the code has the meaning of the set that uses it. A
label that is not here is not guessed at."""


def plain(label: str) -> str:
    """A label in lower case, with anything but letters and digits as one space."""
    return re.sub(r"[^a-z0-9]+", " ", label.lower()).strip()


@lru_cache(maxsize=1)
def _words() -> dict[str, Stage]:
    words: dict[str, Stage] = {}
    for stage in STAGES:
        for label in (stage.name, *stage.words):
            words[plain(label)] = stage
    return words


def stage_of(label: str) -> Stage | None:
    """The stage that a label means, also in the plural; `None` if it is not on the graph."""
    label = plain(label)
    words = _words()
    return words.get(label) or words.get(label.removesuffix("s"))


@lru_cache(maxsize=1)
def _steps() -> dict[str, dict[str, int]]:
    """Steps between any two stages along the graph, walked in either direction."""
    near: dict[str, set[str]] = {stage.name: set() for stage in STAGES}
    for stage in STAGES:
        if stage.after is not None:
            near[stage.name].add(stage.after)
            near[stage.after].add(stage.name)
    found: dict[str, dict[str, int]] = {}
    for start in near:
        steps, left = {start: 0}, deque([start])
        while left:
            at = left.popleft()
            for name in sorted(near[at] - steps.keys()):
                steps[name] = steps[at] + 1
                left.append(name)
        found[start] = steps
    return found


def is_dangerous(truth: str, predicted: str) -> bool:
    """Whether a blast is taken for a mature cell, or a mature cell for a blast.

    Promonocytes are counted as blasts, as the WHO classification does (5th edition, 2022,
    acute myeloid leukaemia).
    """
    one, other = stage_of(truth), stage_of(predicted)
    if one is None or other is None:
        return False
    return {one.maturity, other.maturity} == {"blast", "mature"}


def spread(vote: Vote) -> LineageSpread | None:
    """A vote laid out along maturation; `None` where its first label is not on the graph."""
    first = None if vote.label is None else stage_of(vote.label)
    if first is None or vote.label is None:
        return None
    shares: dict[str, float] = {}
    lineages: dict[str, float] = {}
    dangerous = unmapped = 0.0
    for label, share in vote.shares.items():
        stage = stage_of(label)
        if stage is None:
            unmapped += share
            continue
        shares[stage.name] = shares.get(stage.name, 0.0) + share
        lineages[stage.lineage] = lineages.get(stage.lineage, 0.0) + share
        dangerous += share if is_dangerous(vote.label, label) else 0.0
    known = {stage.name: stage for stage in STAGES}
    stages = [
        StageShare(
            stage=name,
            lineage=known[name].lineage,
            share=share,
            steps=_steps()[first.name][name],
        )
        for name, share in sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    mapped = sum(shares.values())
    return LineageSpread(
        stages=tuple(stages),
        lineages=dict(sorted(lineages.items(), key=lambda pair: (-pair[1], pair[0]))),
        mean_steps=sum(one.share * one.steps for one in stages) / mapped,
        dangerous=dangerous,
        unmapped=unmapped,
    )
