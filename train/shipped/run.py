"""The encoder that ships, by one command: pack, train, evaluate, export.

    python -m train.shipped.run --recipe gpu-s-mild --minutes 9

does as much as fits into nine minutes and says whether to run it again. When training is over it
evaluates on the held-out quarter of PBC, and writes the weights and their card if the encoder
beats the colour histogram there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from encoder.card import EncoderCard
from train.config import TrainConfig, read_config
from train.shipped.config import DefaultConfig
from train.shipped.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from encoder.features.joint import Beside

MORE = 4
"""Exit status: stopped in time, run the same command again."""
REFUSED = 3
"""Exit status: finished, but not better than colours, so nothing was exported."""


def train_config(
    config: DefaultConfig, packs: dict[str, Path], guide: Path | None = None
) -> TrainConfig:
    """The recipe as a run over these packs, with the numbers that it is to predict."""
    recipe = RECIPES[config.recipe]
    used = {name: path for name, path in packs.items() if name in recipe.shares}
    values: dict[str, Any] = {
        **recipe.values,
        "guide": guide,
        "data": tuple(used.values()),
        "weights": tuple(recipe.shares[name] for name in used),
        "out": config.run_folder,
        "name": recipe.id,
        "licence": "Apache-2.0",
        "threads": config.threads,
        "max_minutes": config.minutes,
        "tensorboard": False,
    }
    return TrainConfig(**values)


def pack_step(config: DefaultConfig) -> dict[str, Path]:
    """Pack what the recipe draws from, once."""
    from train.shipped.data import pack_all

    recipe = RECIPES[config.recipe]
    return pack_all(
        config.root, config.work / "packs", recipe.px, names=tuple(recipe.shares),
        pbc=not config.external, quality=recipe.quality, form=recipe.form,
    )  # fmt: skip


def train_step(config: DefaultConfig, packs: dict[str, Path], say: Any = None) -> bool:
    """One slice of training; true when the run is over. Seconds of all slices are noted."""
    from train.dino.loop import train
    from train.shipped.data import guide_for

    begun = time.monotonic()
    recipe = RECIPES[config.recipe]
    used = {name: path for name, path in packs.items() if name in recipe.shares}
    guide = guide_for(used, recipe.px, recipe.guided) if recipe.guided else None
    outcome = train(train_config(config, packs, guide), say)
    spent = config.run_folder / "seconds.json"
    slices: list[float] = json.loads(spent.read_text()) if spent.exists() else []
    spent.write_text(json.dumps([*slices, round(time.monotonic() - begun, 1)]))
    return outcome.finished


def trained(config: DefaultConfig, folder: Path) -> EncoderCard:
    """Write the run's last kept teacher as an encoder: half precision, with our card."""
    from encoder.networks import checkpoint as published
    from encoder.networks.export import save
    from encoder.networks.vit import bare_model
    from train.dino import checkpoint
    from train.dino.model import load_start

    run = read_config(config.run_folder / "config.json")
    recipe = RECIPES[config.recipe]
    state = checkpoint.load(config.run_folder, "best.pt")
    if state is None:
        raise checkpoint.CheckpointError(f"{config.run_folder} holds no trained encoder; train it")
    start = load_start(run)
    norm = start.parent or EncoderCard(id="random", architecture=start.timm_name, dim=1)
    tensors, kwargs = dict(state["vit"]), dict(start.kwargs)
    side = recipe.input_px or start.img_size
    resampled = published.fit_positions(
        tensors, bare_model(start.timm_name, side, kwargs), str(config.run_folder)
    )
    card = EncoderCard(
        id=recipe.id + ("-external" if config.external else ""),
        architecture=start.timm_name,
        dim=int(tensors["norm.weight"].shape[0]),
        input_px=side,
        mean=norm.mean,
        std=norm.std,
        resample=run.resample,
        pooling=recipe.pooling,
        patch_px=run.patch_px,
        pos_embed_interp=resampled,
        licence="Apache-2.0",
        source="trained from random weights by train/shipped/run.py; see MODEL.md",
        notes=f"{recipe.about}; step {state['step']} of {run.total_steps}. Research use only.",
    )

    def write(where: Path, beside: Beside | None = None) -> EncoderCard:
        return save(
            where, card, tensors, timm_name=start.timm_name, img_size=side,
            dtype="fp16", model_kwargs=kwargs, beside=beside,
        )  # fmt: skip

    if recipe.even:
        with TemporaryDirectory() as scratch:  # whoever loads the folder meanwhile gets the old one
            bare = Path(scratch) / card.id
            write(bare)
            projection = evening(
                bare, run.data[0], run.decoded_px, *recipe.even, even=recipe.beside is not None
            )
        tensors |= projection
        kwargs["project"] = len(projection["project.bias"])
        card = replace(card, dim=kwargs["project"])
    if recipe.beside is None:
        return write(folder)
    beside = measured_beside(config)
    card = replace(card, dim=card.dim + beside.dim)
    return write(folder, beside)


def measured_beside(config: DefaultConfig) -> Beside:
    """The measured half: axes decided by the set that is drawn most often."""
    from encoder.features.descriptors import VERSION
    from encoder.features.joint import Beside
    from encoder.features.measured import CARD, read_axes, write_axes
    from train.shipped.axes import POWER
    from train.shipped.data import axes_for, sources

    recipe = RECIPES[config.recipe]
    if recipe.beside is None:
        raise ValueError(f"recipe {config.recipe} has nothing measured beside it")
    names = [name for name in recipe.shares if name != "pbc" or not config.external]
    first = max(names, key=lambda name: recipe.shares[name])
    held = config.work / "packs" / f"axes-{first}-{VERSION}-{CARD.dim}-{POWER}.npz"
    if not held.exists():
        held.parent.mkdir(parents=True, exist_ok=True)
        (source,) = sources(config.root, [first]).values()
        write_axes(held, axes_for(source, CARD.dim, POWER))
    return Beside(read_axes(held), recipe.beside)


def evening(
    folder: Path, source: Path, px: int, dim: int, power: float, *, even: bool = False
) -> dict[str, Tensor]:
    """A linear layer that evens out an encoder's vectors (`encoder.features.descriptors.evened`).

    Args:
        folder: Of the encoder.
        source: The images that decide; no label is read.
        px: Side at which they are decoded.
        dim: Components kept.
        power: Of the spread that each is divided by.
        even: Whether the cast of colours is taken off first, as a joint encoder does.
    """
    import torch

    from encoder.features.descriptors import SIDE, evened, evened_out, without
    from encoder.image import resize
    from encoder.networks.export import build
    from train.data.images import Images, open_source

    _, network = build(folder, "auto")
    images = Images([open_source(source)], px, "lanczos")
    rows = []
    for at in range(0, len(images), 256):
        found = [images.decode(n) for n in range(at, min(at + 256, len(images)))]
        known = [image for image in found if image is not None]
        if even:
            known = [without(one, evened_out(resize(one, SIDE, "lanczos"))[1]) for one in known]
        rows.append(network.vectors(known))
    table = np.concatenate(rows)
    made = evened(table, dim, power)
    return {
        "project.weight": torch.from_numpy(np.ascontiguousarray(made.axes.T)),
        "project.bias": torch.from_numpy(-made.mean @ made.axes),
    }


def run(config: DefaultConfig, say: Any = None) -> int:
    """Every step that was asked for; returns the exit status."""
    from train.shipped.report import beats_colour, evaluate_all, model_card, write_json

    tell = say or (lambda text: None)
    recipe: Recipe = RECIPES[config.recipe]
    candidate = config.run_folder / "encoder"
    record = config.run_folder / "record.json"
    if "pack" in config.steps or "train" in config.steps:
        packs = pack_step(config)
        tell(f"packed: {', '.join(f'{name} {path}' for name, path in packs.items())}")
    if "train" in config.steps and not train_step(config, packs, tell):
        tell("not finished: run the same command again")
        return MORE
    if "evaluate" in config.steps:
        trained(config, candidate)
        write_json(record, evaluate_all(config, candidate, tell))
    if "export" not in config.steps or config.external:
        return 0
    told: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    if not beats_colour(told):
        tell(f"not exported: {recipe.id} does not beat colours; see {record}")
        return REFUSED
    folder = config.weights / recipe.id
    trained(config, folder)
    other = config.model_copy(update={"external": True}).run_folder / "record.json"
    external = json.loads(other.read_text(encoding="utf-8")) if other.exists() else None
    text = model_card(config, told, external)
    (folder / "MODEL.md").write_text(text, encoding="utf-8")
    tell(f"exported to {folder}")
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    from pydantic_settings import CliApp
    from rich.console import Console

    from train.evaluation.run import spread

    console = Console(highlight=False, soft_wrap=True)
    given = spread(sys.argv[1:] if words is None else words)
    return run(CliApp.run(DefaultConfig, cli_args=given), lambda text: console.out(text))


if __name__ == "__main__":
    sys.exit(main())
