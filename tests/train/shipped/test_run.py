from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from encoder import registry
from train.config import TrainConfig
from train.shipped import run as default
from train.shipped.config import DefaultConfig
from train.shipped.recipes import RECIPES, Recipe
from train.shipped.report import beats_colour, costly
from train.shipped.run import MORE, REFUSED, main, run, train_config

TOY: dict[str, Any] = {
    "embed_dim": 16,
    "depth": 1,
    "heads": 2,
    "steps": 2,
    "batch": 8,
    "global_px": 28,
    "image_px": 32,
    "local_px": 14,
    "stages": (),
    "prototypes": 16,
    "head_hidden": 16,
    "head_bottleneck": 8,
    "watch_every": 1,
    "checkpoint_every": 1,
    "log_every": 1,
    "patch_px": 7,
    "stem": "patch",
    "precision": "fp32",
    "hold": "memory",
    "compile": False,
}


@pytest.fixture(name="cells")
def _cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with red and blue cells in PBC's place, and a toy recipe for it."""
    rng = np.random.default_rng(0)
    for code, colour in (("BA", (200, 40, 40)), ("EO", (40, 40, 200))):
        folder = tmp_path / "data" / "pbc" / "cells" / code
        folder.mkdir(parents=True)
        for at in range(16):
            image = np.clip(np.array(colour) + rng.integers(-30, 31, (32, 32, 3)), 0, 255)
            Image.fromarray(image.astype(np.uint8)).save(folder / f"{code}_{at}.jpg")
    toy = Recipe("toy-xs", "a toy", {**RECIPES["cpu"].values, **TOY}, 32, {"pbc": 1.0}, True)
    monkeypatch.setitem(RECIPES, "toy", toy)
    return tmp_path


def _config(cells: Path, **given: Any) -> DefaultConfig:
    return DefaultConfig(
        recipe="toy", root=cells / "data", work=cells / "work", reports=cells / "reports",
        weights=cells / "weights", also=(), threads=1, **given,
    )  # fmt: skip


def test_one_command_packs_trains_evaluates_and_refuses_what_colours_do_as_well(
    cells: Path,
) -> None:
    said: list[str] = []

    status = run(_config(cells), said.append)

    assert status == REFUSED  # colours tell these two kinds apart without a mistake
    assert not (cells / "weights").exists()
    assert any("does not beat colours" in line for line in said)
    record = json.loads((cells / "work" / "toy" / "record.json").read_text())
    encoders = record["sets"]["pbc, held-out quarter"]["encoders"]
    assert list(encoders) == ["raw pixels", "colour", "measured", "toy-xs"]
    assert record["sets"]["pbc, held-out quarter"]["asked"] == 8
    assert {loss["shift"] for loss in record["robustness"]["toy-xs"]} >= {"hue +10 %"}
    assert record["training"]["seconds"] > 0
    assert record["training"]["run"]["images"] == 24


def test_what_beats_colours_is_exported_with_a_card_that_says_how(cells: Path) -> None:
    run(_config(cells, steps=("pack", "train", "evaluate")))
    path = cells / "work" / "toy" / "record.json"
    record = json.loads(path.read_text())
    for row in record["sets"]["pbc, held-out quarter"]["encoders"]["colour"]:
        row["weighted_f1"] = row["balanced_accuracy"] = -1.0
    path.write_text(json.dumps(record))
    other = cells / "work" / "toy-external" / "record.json"
    other.parent.mkdir()
    other.write_text(json.dumps(record))

    status = run(_config(cells, steps=("export",)))

    assert status == 0
    folder = cells / "weights" / "toy-xs"
    encoder = registry.load(str(folder), device="cpu")
    assert encoder.card.id == "toy-xs"
    assert encoder.card.input_px == 28
    assert encoder.card.fingerprint == record["fingerprint"]
    text = (folder / "MODEL.md").read_text()
    for part in (
        "## Trained on",
        "CC BY 4.0",
        "## Limits",
        "--recipe toy",
        '"hue": 0.06',
        "asked about PBC",
    ):
        assert part in text


def test_a_slice_that_ends_in_time_asks_for_the_next_one(cells: Path) -> None:
    steps = ("pack", "train")
    first = run(_config(cells, steps=steps, minutes=1e-6))
    second = run(_config(cells, steps=steps, minutes=None))

    assert (first, second) == (MORE, 0)
    slices = json.loads((cells / "work" / "toy" / "seconds.json").read_text())
    assert len(slices) == 2


def test_the_external_run_is_kept_apart_and_not_exported(cells: Path) -> None:
    config = _config(cells, external=True)

    assert config.run_folder.name == "toy-external"


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="gpu-s-mild"):
        DefaultConfig(recipe="huge")


def test_the_command_line_reads_lists(cells: Path) -> None:
    words = ["--recipe", "toy", "--steps", '["pack"]', "--root", str(cells / "data")]

    assert main([*words, "--work", str(cells / "work")]) == 0
    assert (cells / "work" / "packs" / "pbc-32-jpeg-95" / "pack.json").is_file()


def test_both_scores_must_be_above_those_of_colours() -> None:
    def record(own: tuple[float, float]) -> dict[str, Any]:
        def rows(pair: tuple[float, float]) -> list[dict[str, Any]]:
            return [{"method": "20-NN", "weighted_f1": pair[0], "balanced_accuracy": pair[1]}]

        encoders = {"colour": rows((0.8, 0.7)), "x": rows(own)}
        return {"encoder": "x", "sets": {"pbc, held-out quarter": {"encoders": encoders}}}

    assert beats_colour(record((0.81, 0.71)))
    assert not beats_colour(record((0.81, 0.70)))
    assert not beats_colour(record((0.79, 0.71)))


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_is_a_valid_run(name: str, tmp_path: Path) -> None:
    packs = {key: tmp_path / key for key in RECIPES[name].shares}

    made = train_config(DefaultConfig(recipe=name, work=tmp_path), packs)

    assert isinstance(made, TrainConfig)
    assert made.weights == tuple(RECIPES[name].shares.values())
    for part in made.plan():
        assert part.global_px % made.patch_px == 0
        assert made.local_crops == 0 or part.local_px % made.patch_px == 0
    assert made.probe is None  # no label is seen in training


@pytest.mark.parametrize("name", ["gpu-ti-strong", "gpu-s-mild"])
def test_a_gpu_recipe_trains_at_toy_size(
    name: str, cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = {"steps": 1, "global_px": 42, "local_px": 14, "batch": 4}
    values = {**RECIPES[name].values, **TOY, "stages": (stage,), "local_crops": 2}
    toy = Recipe("toy-xs", "a toy", MappingProxyType(values), 32, {"pbc": 1.0}, True)
    monkeypatch.setitem(RECIPES, "toy", toy)

    config = _config(cells, steps=("pack", "train"), minutes=None)

    assert run(config) == 0
    card = default.trained(config, cells / "made")
    assert card.input_px == 42


def test_a_guided_recipe_measures_every_image_and_evens_its_vectors_out(
    cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = Recipe(
        "toy-xs", "a toy", {**RECIPES["cpu"].values, **TOY}, 32, {"pbc": 1.0}, True,
        pooling="mean", guided=6, even=(8, 0.8), input_px=35,
    )  # fmt: skip
    monkeypatch.setitem(RECIPES, "toy", toy)
    config = _config(cells, steps=("pack", "train"))

    assert run(config) == 0
    (table,) = (cells / "work" / "packs").glob("guide-*.npy")
    card = default.trained(config, cells / "made")

    assert np.load(table).shape == (24, 6)  # three quarters of 32 cells
    assert (card.dim, card.input_px, card.pooling) == (8, 35, "mean")
    assert card.pos_embed_interp is not None
    encoder = registry.load(str(cells / "made"), device="cpu")
    assert encoder.embed([np.zeros((40, 40, 3), np.uint8)]).shape == (1, 8)


def test_a_shift_that_costs_too_much_is_a_limit_in_words() -> None:
    losses = [
        {"shift": name, "lost": {"weighted_f1": lost}}
        for name, lost in (("hue +10 %", 0.2), ("brightness -10 %", 9.51))
    ]

    (line,) = costly(losses)

    assert "brightness -10 % lose 9.5 points" in line
