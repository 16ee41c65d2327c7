"""The tree of labels that all sets share.

Leaves are the finest kinds that any set tells apart. A coarser label (a boxed red cell) is the set
of leaves that it may be: its probability is their sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from search.trees import CHULA_TYPES

NUCLEATED = ("BA", "BNE", "EO", "ERB", "LY", "MMY", "MO", "MY", "PMY", "SNE", "BLA")
LEAVES = (*NUCLEATED, "PLATELET", *CHULA_TYPES)
PARENTS = (
    ("BNE", "SNE"),
    ("MMY", "MY", "PMY"),
    ("BA",),
    ("EO",),
    ("ERB",),
    ("LY",),
    ("MO",),
    ("BLA",),
    ("PLATELET",),
    CHULA_TYPES,
)
"""Leaves by what a coarser eye calls alike: neutrophils, immature granulocytes, red cells."""
MEANING: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **{leaf: (leaf,) for leaf in LEAVES},
        "EOS": ("EO",),
        "LYT": ("LY",),
        "MON": ("MO",),
        "NGS": ("SNE",),
        "PMO": ("PMY",),
        "rbc": CHULA_TYPES,
        "wbc": NUCLEATED,
    }
)
"""Every label of a set, in its own words, and the leaves that it may be."""
SHARED: Mapping[str, str] = MappingProxyType(
    {
        "BNE": "neutrophil",
        "SNE": "neutrophil",
        "NGS": "neutrophil",
        "EO": "eosinophil",
        "EOS": "eosinophil",
        "LY": "lymphocyte",
        "LYT": "lymphocyte",
        "MO": "monocyte",
        "MON": "monocyte",
        "BA": "basophil",
        "MY": "myelocyte",
        "MMY": "metamyelocyte",
        "BLA": "blast",
        "Myeloblast": "blast",
    }
)
"""Labels by the names that laboratories are compared in; others in lower case as they are."""


def shared(label: str) -> str:
    """The name of a label that all laboratories use."""
    return SHARED.get(label, label.lower())


def allowed(label: str) -> Tensor:
    """Which leaves a label may be, one for each of `LEAVES`.

    Raises:
        KeyError: a label that the tree does not have.
    """
    return torch.tensor([leaf in MEANING[label] for leaf in LEAVES])


def siblings() -> Tensor:
    """leaves x leaves: which are of one parent."""
    return torch.stack(
        [
            torch.tensor([any(leaf in p and other in p for p in PARENTS) for other in LEAVES])
            for leaf in LEAVES
        ]
    )
