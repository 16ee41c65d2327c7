"""Fine-tuning of a tiny transformer on drawn cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from encoder.card import EncoderCard
from encoder.contract import EncoderError
from encoder.networks.export import save
from encoder.networks.vit import timm_model
from encoder.registry import load
from train.config import TrainConfig
from train.dino.model import load_start
from train.tuning.supervised import Classifier, TuneConfig, tune


@pytest.fixture(name="start", scope="module")
def _start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained transformer for 56 pixels, as an exported folder."""
    folder = tmp_path_factory.mktemp("start")
    kwargs = {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 14, "init_values": 1.0}
    torch.manual_seed(0)
    model = timm_model("vit_small_patch14_dinov2", 56, kwargs)
    card = EncoderCard(id="tiny", architecture="x", dim=24, input_px=56, patch_px=14)
    save(
        folder, card, model.state_dict(), timm_name="vit_small_patch14_dinov2", img_size=56,
        model_kwargs=kwargs,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("how", ["attention", "lora"])
def test_each_way_learns_its_own_numbers_and_scores(how, cells, start, tmp_path):
    config = TuneConfig(
        data=f"folder:{cells}", start=str(start), how=how, out=tmp_path / how, epochs=10, batch=16,
        blocks=1, lr=3e-2, patience=10, px=56, device="cpu",
    )  # fmt: skip
    done = tune(config, Console(quiet=True))
    before = load(str(start))

    assert set(done.scores) == {"tuned", "20-NN", "linear probe"}
    assert done.scores["tuned"]["accuracy"] > 0.4  # a quarter by chance
    assert (tmp_path / how / "head.safetensors").is_file()
    assert done.exported == (how in ("lora", "last-blocks"))
    if not done.exported:
        assert not (tmp_path / how / "card.json").exists()
        return
    after = load(str(tmp_path / how))
    pictures = list(np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3), np.uint8))
    cosines = (before.embed(pictures) * after.embed(pictures)).sum(axis=1)
    assert cosines.max() < 0.9999
    assert after.card.fingerprint != before.card.fingerprint


@pytest.mark.parametrize(
    ("how", "learns"),
    [
        ("linear", set()),
        ("attention", set()),
        ("lora", {"blocks.0", "blocks.1"}),
        ("last-blocks", {"blocks.1", "norm"}),
    ],
)
def test_only_what_is_named_learns(how, learns, cells, start, tmp_path):
    config = TuneConfig(data="folder:x", start=str(start), how=how, out=tmp_path, px=56, blocks=1)
    plan = TrainConfig(data=(cells,), out=tmp_path, start=str(start), global_px=56)
    model = Classifier(load_start(plan), config, classes=4)
    moving = [name for name, p in model.backbone.vit.named_parameters() if p.requires_grad]

    assert {".".join(name.split(".")[: 2 if "blocks" in name else 1]) for name in moving} == learns
    assert all("lora_" in name for name in moving) or how != "lora"
    assert all(p.requires_grad for p in model.head.parameters())


def test_a_network_that_is_no_transformer_is_refused(cells, tmp_path):
    config = TuneConfig(data=f"folder:{cells}", start="colour", out=tmp_path)
    with pytest.raises(EncoderError, match="colour"):
        tune(config, Console(quiet=True))
