"""Settings of the run that makes the encoder that ships."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from encoder.registry import SHIPPED
from train.augmentation.randomisation import PARTS
from train.shipped.data import SHARES
from train.shipped.recipes import RECIPES

Step = Literal["pack", "carry", "train", "evaluate", "export"]
STEPS: tuple[Step, ...] = ("pack", "train", "evaluate", "export")


class DefaultConfig(BaseModel):
    """Train the encoder that ships.

    Everything but the weights goes to a folder that git ignores. The same command goes on where
    the last one stopped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    recipe: str = "cpu"
    """cpu, gpu or gpu-vit."""
    steps: tuple[Step, ...] = STEPS
    """Which steps, in this order. carry writes the packs in a few megabytes, to be unpacked on a
    machine that has a GPU but not the data."""
    sets: tuple[str, ...] = tuple(SHARES)
    """Laboratories to learn from. One that is left out gives the queries instead; not exported."""
    but_batch: str | None = None
    """A capture batch of Chula to leave out, such as 51-222. Not exported."""
    left_out: tuple[str, ...] = ()
    """Parts of the randomisation to leave out, to measure what they are worth. Not exported."""
    reversal: float = Field(default=0.0, ge=0)
    """Weight of the reversed gradient of a guess of the laboratory. Not exported."""
    total: float | None = Field(default=None, gt=0)
    """Minutes of training in all; the recipe's if not given."""
    views: int | None = Field(default=None, gt=0)
    """Views to train on, in place of a time: runs of the same length on a busy machine."""
    start: Path | None = None
    """A run's `last.pt` to start from in place of ImageNet's weights."""
    minutes: float | None = Field(default=9.0, gt=0)
    """This slice of training stops at a checkpoint after so long; none: it goes to its end."""
    root: Path = Path(os.environ.get("HEMASEEK_DATA", "../shared/data"))
    """Folder with pbc, bmc, chula, aslan, bccd and attri; HEMASEEK_DATA if that is set."""
    work: Path = Path("runs/default")
    """Packs, runs and records."""
    reports: Path = Path("reports/default")
    """Pictures of what is confused."""
    weights: Path = SHIPPED
    """Where the finished encoder goes, in a folder of its id."""
    threads: int = Field(default=0, ge=0)
    """Threads of torch; 0 leaves its choice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where training runs."""
    seed: int = 0

    @field_validator("recipe")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in RECIPES:
            raise ValueError(f"unknown recipe {name!r}; known are {', '.join(RECIPES)}")
        return name

    @field_validator("left_out")
    @classmethod
    def _parts(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(names) - set(PARTS):
            raise ValueError(f"unknown parts {sorted(unknown)}; known are {', '.join(PARTS)}")
        return names

    @property
    def ships(self) -> bool:
        """Whether nothing was left out, so that it may be exported."""
        whole = not self.left_out and self.but_batch is None and not self.reversal
        return whole and set(self.sets) == set(SHARES)

    @property
    def run_folder(self) -> Path:
        """Of this run."""
        without = [name for name in SHARES if name not in self.sets]
        parts = [*without, *([self.but_batch] if self.but_batch else []), *self.left_out]
        reversal = [f"reversal-{self.reversal:g}"] if self.reversal else []
        return self.work / "-".join(
            [self.recipe, *reversal, *(["without", *parts] if parts else [])]
        )
