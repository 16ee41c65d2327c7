"""Settings of the run that makes the encoder that ships."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from encoder.registry import SHIPPED
from train.shipped.recipes import RECIPES

Step = Literal["pack", "train", "evaluate", "export"]


STEPS: tuple[Step, ...] = ("pack", "train", "evaluate", "export")


class DefaultConfig(BaseModel):
    """Train the encoder that ships.

    Everything but the weights goes to a folder that git ignores. The same command goes on where
    the last one stopped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    recipe: str = "cpu"
    """cpu, gpu-ti-mild, gpu-ti-strong, gpu-s-mild or gpu-s-strong."""
    steps: tuple[Step, ...] = STEPS
    """Which steps, in this order."""
    external: bool = False
    """Leave every image of PBC out of training: the papers' external protocol. Not exported."""
    root: Path = Path(os.environ.get("HEMASEEK_DATA", "../shared/data"))
    """Folder with pbc, chula, bccd, aslan and lc25000; HEMASEEK_DATA if that is set."""
    work: Path = Path("runs/default")
    """Packs, runs and records."""
    reports: Path = Path("reports/default")
    """Pictures of what is confused."""
    weights: Path = SHIPPED
    """Where the finished encoder goes, in a folder of its id."""
    minutes: float | None = Field(default=9.0, gt=0)
    """Training stops at a checkpoint after so long; none: it goes to its end."""
    threads: int = Field(default=0, ge=0)
    """Threads of torch; 0 leaves its choice."""
    also: tuple[str, ...] = ("chula", "chula-no-12", "lc25000", "bccd")
    """Sets to report on beside the held-out quarter."""

    @field_validator("recipe")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in RECIPES:
            raise ValueError(f"unknown recipe {name!r}; known are {', '.join(RECIPES)}")
        return name

    @property
    def run_folder(self) -> Path:
        """Of this recipe's run."""
        return self.work / (self.recipe + ("-external" if self.external else ""))
