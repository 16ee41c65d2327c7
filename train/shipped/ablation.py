r"""What each part of the randomisation is worth: short runs, each without one part.

    python -m train.shipped.ablation --recipe gpu --total 0.35 --but-batch 51-222
    python -m train.shipped.ablation --recipe cpu --views 6400 --px 64 --but-batch 51-222 \
        --parts '["stain", "rotation"]' --most 800

Every run starts anew and sees neither BMC nor one capture batch of Chula. Those, BCCD and `attri`
are then the queries; what was learned from is the index. The robustness index is of PBC, BMC and
BCCD together. The first run and the last leave nothing out and differ in their seed: a difference
smaller than theirs means nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pydantic import Field, field_validator
from torch.nn import functional

from encoder.contract import Vectors
from train.augmentation.randomisation import PARTS, Randomisation
from train.shipped.abroad import abroad, sites
from train.shipped.config import DefaultConfig
from train.shipped.data import Pictures, pictures
from train.shipped.loop import LAST, Classifier, device_of, prepared, train
from train.shipped.recipes import RECIPES
from train.shipped.start import network

Say = Callable[[str], None]
REVERSAL = 0.1
"""Weight of the reversed gradient in the run that has one."""
AT_ONCE = 64
"""Pictures that are embedded together."""


class AblationConfig(DefaultConfig):
    """Train without each part of the randomisation in turn, and score each run."""

    parts: tuple[str, ...] = Field(default=PARTS)
    """Parts to leave out, one a run."""
    most: int | None = Field(default=None, gt=0)
    """Cells of each set that scores are made from, drawn; all of them if not given."""
    px: int | None = Field(default=None, ge=32, multiple_of=32)
    """Side of a view, scored at 5/4 of it, for short runs; the recipe's sides if not given."""

    @field_validator("parts")
    @classmethod
    def _each(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return cls._parts(names)


@torch.inference_mode()
def embedded(classifier: Classifier, cells: Pictures, px: int) -> Vectors:
    """Vectors of whole pictures at `px`, one look each: n x dim."""
    classifier.eval()
    device = classifier.kinds.device
    half = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
    rows = []
    with half:
        for start in range(0, len(cells.images), AT_ONCE):
            part = cells.images[start : start + AT_ONCE]
            views = part.to(device).permute(0, 3, 1, 2).float() / 255
            views = functional.interpolate(
                views, size=(px, px), mode="bilinear", antialias=True, align_corners=False
            )
            rows.append(classifier(views.clamp(0, 1)).float().cpu())
    return torch.cat(rows).numpy()


def left_out(config: DefaultConfig) -> tuple[list[Pictures], list[Pictures]]:
    """What is learned from, and the queries of afterwards.

    Raises:
        ValueError: no batch of Chula is named, or an unknown one.
    """
    packs = config.work / "packs"
    held = {
        name: pictures(name, config.root, packs)
        for name in ("pbc", "chula", "aslan", "bmc", "bccd", "attri")
    }
    batch = np.array(held["chula"].sources) == config.but_batch
    if not batch.any():
        raise ValueError(f"Chula has no batch {config.but_batch!r}; name one with --but-batch")
    learned = [held["pbc"], held["chula"].of(~batch), held["aslan"]]
    return learned, [held["bccd"], held["bmc"], held["attri"], held["chula"].of(batch)]


def drawn(cells: Pictures, most: int | None) -> Pictures:
    """At most so many cells of a set, the same in every run."""
    keep = np.ones(len(cells.labels), bool)
    if most is not None and most < len(keep):
        keep[:] = False
        keep[np.random.default_rng(0).choice(len(keep), most, replace=False)] = True
    return cells.of(keep)


def scores(
    classifier: Classifier, learned: Sequence[Pictures], queries: Sequence[Pictures], px: int
) -> dict[str, Any]:
    """20-NN weighted F1 and balanced accuracy of each set of queries, in percent, and `sites`:
    the own laboratory among neighbours and the robustness index of PBC, BMC and BCCD."""
    index, others = (
        {
            one.name: (one.labelled(), embedded(classifier, one, px))
            for one in some
            if one.name != "aslan"
        }
        for some in (learned, queries)
    )
    found: dict[str, Any] = {}
    for name, side in others.items():
        result = abroad(side, list(index.values()))
        found[name] = [
            round(100 * result[score], 1) for score in ("weighted_f1", "balanced_accuracy")
        ]
    found["sites"] = sites([index["pbc"], others["bmc"], others["bccd"]])
    return found


def runs(parts: Sequence[str] = PARTS) -> list[tuple[str, Mapping[str, Any]]]:
    """Names of the runs, and what is other in each."""
    return [
        ("nothing", {"seed": 0}),
        (f"nothing, with reversed gradient {REVERSAL:g}", {"reversal": REVERSAL}),
        *[(part, {"left_out": (part,)}) for part in parts],
        ("nothing, another seed", {"seed": 1}),
    ]


def main(words: Sequence[str] | None = None) -> int:
    """The command line; prints a line for each run."""
    from rich.console import Console

    from train.evaluation.command import config_of

    console = Console(highlight=False, soft_wrap=True)
    config = config_of(AblationConfig, words)
    if config.threads:
        torch.set_num_threads(config.threads)
    learned, others = left_out(config)
    index, queries = ([drawn(one, config.most) for one in some] for some in (learned, others))
    folder = config.work / "ablation"
    folder.mkdir(parents=True, exist_ok=True)
    for at, (name, other) in enumerate(runs(config.parts)):
        one = config.model_copy(update=dict(other))
        recipe = replace(RECIPES[config.recipe].of_views(one.views), reversal=one.reversal)
        if config.px is not None:
            recipe = replace(recipe, px=config.px, input_px=config.px * 5 // 4)
        torch.manual_seed(one.seed)
        run = prepared(folder / str(at), recipe, network(recipe), device_of(config.device), None)
        minutes = config.total or recipe.minutes
        views = Randomisation(recipe.px, one.left_out)
        train(run, learned, views, minutes=minutes, slice_minutes=None, seed=one.seed)
        (run.folder / LAST).unlink()
        found = scores(run.mean, index, queries, recipe.input_px)
        line = {"left out": name, "views": run.step * recipe.batch, **found}
        with (folder / "table.jsonl").open("a", encoding="utf-8") as table:
            table.write(json.dumps(line) + "\n")
        console.out(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
