"""The encoder that ships, by one command: pack, train, evaluate, export.

    python -m train.shipped.run --recipe cpu --minutes 9

does as much as fits into nine minutes and says whether to run it again. When training is over it
evaluates at home and in laboratories that it never saw, and writes the weights and their card if
the encoder beats the colour histogram at home.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from encoder.card import EncoderCard
from encoder.field_of_view import USUAL
from train.augmentation.randomisation import WHITE, Randomisation
from train.shipped.config import DefaultConfig
from train.shipped.data import MADE, Pictures, carry, pictures
from train.shipped.loop import LAST, MEAN, STD, Classifier, device_of, prepared, train
from train.shipped.recipes import RECIPES, Recipe
from train.shipped.start import network

MORE = 4
"""Exit status: stopped in time, run the same command again."""
REFUSED = 3
"""Exit status: finished, but not better than colours, so nothing was exported."""
Say = Callable[[str], None]


def pack_step(config: DefaultConfig) -> list[Pictures]:
    """What the run learns from, packed once."""
    packs = config.work / "packs"
    sets = [pictures(name, config.root, packs) for name in config.sets]
    if config.but_batch is None:
        return sets
    if config.but_batch not in next((one.sources for one in sets if one.name == "chula"), ()):
        raise ValueError(f"Chula has no batch {config.but_batch!r}")
    return [
        one.of(np.array(one.sources) != config.but_batch) if one.name == "chula" else one
        for one in sets
    ]


def train_step(config: DefaultConfig, sets: list[Pictures], say: Say) -> bool:
    """One slice of training; true when the run is over."""
    recipe = replace(RECIPES[config.recipe].of_views(config.views), reversal=config.reversal)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    model = network(recipe) if config.start is None else blank(recipe)
    run = prepared(config.run_folder, recipe, model, device_of(config.device), config.start)
    return train(
        run,
        sets,
        Randomisation(recipe.px, config.left_out),
        minutes=config.total or recipe.minutes,
        slice_minutes=config.minutes,
        seed=config.seed,
        say=say,
    )


def blank(recipe: Recipe) -> torch.nn.Module:
    """The network as a checkpoint has it, before its weights are read."""
    from encoder.networks import lite
    from encoder.networks.vit import timm_model

    if recipe.network != lite.NAME:
        return timm_model(recipe.network, recipe.px, {"project": recipe.dim})
    model = lite.Lite(recipe.dim, recipe.looks)
    for part in model.modules():
        if isinstance(part, lite.Conv):
            part.gain = torch.nn.Parameter(torch.ones(len(part.weight)))
    return model


def trained(config: DefaultConfig, folder: Path) -> EncoderCard:
    """Write the running mean of a run's weights as an encoder: half precision, card, graph.

    Raises:
        FileNotFoundError: nothing was trained yet.
    """
    from encoder.networks import lite
    from encoder.networks.export import save

    recipe = RECIPES[config.recipe]
    state = torch.load(config.run_folder / LAST, map_location="cpu", weights_only=True)
    classifier = Classifier(blank(recipe), recipe)
    own = {name: rows for name, rows in state["mean"].items() if not name.startswith("places.")}
    classifier.load_state_dict(own)
    model = classifier.network
    convolutional = isinstance(model, lite.Lite)
    kwargs = {"dim": recipe.dim, "looks": list(recipe.looks)}
    if isinstance(model, lite.Lite):
        model.fold()
    card = EncoderCard(
        id=recipe.id,
        architecture=recipe.network,
        dim=recipe.dim,
        input_px=recipe.input_px,
        mean=(MEAN,) * 3,
        std=(STD,) * 3,
        resample="bilinear",
        pooling="mean",
        patch_px=recipe.patch_px,
        field_of_view_um=WHITE.middle,
        fields_um=USUAL,
        licence="Apache-2.0",
        source="trained by train/shipped/run.py; see MODEL.md",
        notes=f"{recipe.about}; {state['step']} steps. The cell in the middle of 9 to 46 "
        "micrometres. Research use only.",
    )
    return save(
        folder, card, model.state_dict(), timm_name=recipe.network, img_size=recipe.input_px,
        dtype="fp16", model_kwargs=kwargs if convolutional else {"project": recipe.dim},
        as_graph=True,
    )  # fmt: skip


def run(config: DefaultConfig, say: Say = lambda text: None) -> int:
    """Every step that was asked for; returns the exit status."""
    from train.evaluation.command import write_json
    from train.shipped.card import model_card
    from train.shipped.report import beats_colour, evaluate_all

    candidate, record = config.run_folder / "encoder", config.run_folder / "record.json"
    if "carry" in config.steps:
        for name in MADE:
            pictures(name, config.root, config.work / "packs")
            path = carry(name, config.work / "packs", config.work / "carried")
            say(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    if "pack" in config.steps or "train" in config.steps:
        sets = pack_step(config)
        say("learns from " + ", ".join(f"{len(one.labels)} of {one.name}" for one in sets))
        if "train" in config.steps and not train_step(config, sets, say):
            say("not finished: run the same command again")
            return MORE
    if "evaluate" in config.steps:
        trained(config, candidate)
        write_json(record, evaluate_all(config, candidate, say))
    if "export" not in config.steps or not config.ships:
        return 0
    results = json.loads(record.read_text(encoding="utf-8"))
    recipe = RECIPES[config.recipe]
    if not beats_colour(results):
        say(f"not exported: {recipe.id} does not beat colours; see {record}")
        return REFUSED
    folder = config.weights / recipe.id
    trained(config, folder)
    others = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(config.work.glob(f"{config.recipe}-without-*/record.json"))
    }
    (folder / "MODEL.md").write_text(model_card(results, others), encoding="utf-8")
    say(f"exported to {folder}")
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    from rich.console import Console

    from train.evaluation.command import config_of

    console = Console(highlight=False, soft_wrap=True)
    return run(config_of(DefaultConfig, words), lambda text: console.out(text))


if __name__ == "__main__":
    sys.exit(main())
