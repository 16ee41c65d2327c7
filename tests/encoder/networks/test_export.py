"""What is exported is what is loaded, anywhere, or it is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from encoder import registry
from encoder.card import EncoderCard
from encoder.contract import EncoderError
from encoder.networks import export, vit
from encoder.networks.engines import Torch

NAME = "vit_small_patch14_dinov2"
TINY = {"embed_dim": 32, "num_heads": 2}
CARD = EncoderCard(id="ours", architecture="", dim=32, input_px=28, patch_px=14)


@pytest.fixture(name="model")
def _model() -> nn.Module:
    import timm

    torch.manual_seed(0)
    model: nn.Module = timm.create_model(
        NAME, num_classes=0, img_size=28, depth=3, init_values=0.5, **TINY
    )
    for tensor in model.parameters():
        if tensor.ndim > 1:
            nn.init.normal_(tensor, std=0.2)
    return model.eval()


@pytest.fixture(name="_float32")
def _float32_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vit, "choose", lambda forward, device, side: Torch(forward, device))


def save(folder: Path, model: nn.Module, card: EncoderCard = CARD, **changes: Any) -> EncoderCard:
    settings: dict[str, Any] = {"timm_name": NAME, "img_size": 28, "model_kwargs": TINY} | changes
    return export.save(folder, card, model.state_dict(), **settings)


@pytest.mark.usefixtures("_float32")
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_saved_encoder_gives_the_models_own_vectors(
    model: nn.Module, pooling: Any, rng: np.random.Generator, tmp_path: Path
) -> None:
    card = save(tmp_path / "e", model, replace(CARD, pooling=pooling))
    encoder = registry.load(str(tmp_path / "e"), device="cpu")
    assert encoder.card == card
    assert card.architecture == NAME
    images = rng.integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)
    cls, patches = encoder.tokens(list(images))
    mean, std = torch.tensor(card.mean), torch.tensor(card.std)
    x = ((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        features = model.forward_features(x)  # type: ignore[operator]
    rows = features[:, 0] if pooling == "cls" else features[:, 1:].mean(1)
    assert np.abs(cls - nn.functional.normalize(rows).numpy()).max() < 1e-6
    assert np.abs(patches.reshape(3, 4, 32) - features[:, 1:].numpy()).max() < 1e-5
    assert np.array_equal(encoder.embed(list(images)), cls)


def test_half_precision_halves_the_file_and_is_another_fingerprint(
    model: nn.Module, tmp_path: Path
) -> None:
    full, half = (save(tmp_path / d, model, dtype=d) for d in ("fp32", "fp16"))
    sizes = [(tmp_path / d / "weights.safetensors").stat().st_size for d in ("fp32", "fp16")]
    assert sizes[1] < 0.6 * sizes[0]
    assert full.fingerprint != half.fingerprint
    with safe_open(tmp_path / "fp16/weights.safetensors", "pt") as file:
        assert file.get_tensor("norm.weight").dtype == torch.float16
    _, loaded = export.load_model(tmp_path / "fp16")
    assert all(tensor.dtype == torch.float32 for tensor in loaded.parameters())


def test_a_model_is_loaded_again_to_be_trained_further(model: nn.Module, tmp_path: Path) -> None:
    card = save(tmp_path, model)
    read, again = export.load_model(tmp_path)
    assert read == card
    assert len(again.blocks) == 3  # type: ignore[arg-type]
    mine = model.state_dict()
    assert all(torch.equal(mine[name], tensor) for name, tensor in again.state_dict().items())
    assert json.loads((tmp_path / "model.json").read_text())["kwargs"]["depth"] == 3


def test_saving_again_replaces_the_encoder(model: nn.Module, tmp_path: Path) -> None:
    first = save(tmp_path, model)
    nn.init.zeros_(model.norm.bias)  # type: ignore[union-attr, arg-type]
    nn.init.constant_(model.norm.weight, 2.0)  # type: ignore[union-attr, arg-type]
    second = save(tmp_path, model)
    assert first.fingerprint != second.fingerprint
    assert export.load_model(tmp_path)[0] == second
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["card.json", "model.json", "weights.safetensors"]
    )


@pytest.mark.parametrize("name", ["card.json", "model.json", "weights.safetensors"])
def test_an_unfinished_folder_is_refused(model: nn.Module, name: str, tmp_path: Path) -> None:
    save(tmp_path, model)
    (tmp_path / name).unlink()
    with pytest.raises(EncoderError, match=f"has no {name}: it is no finished export"):
        registry.load(str(tmp_path))


def test_weights_of_another_export_are_refused(model: nn.Module, tmp_path: Path) -> None:
    save(tmp_path / "a", model)
    save(tmp_path / "b", model, dtype="fp16")
    (tmp_path / "b/weights.safetensors").replace(tmp_path / "a/weights.safetensors")
    with pytest.raises(EncoderError, match="do not belong together"):
        registry.load(str(tmp_path / "a"))


def test_settings_of_the_network_are_part_of_the_fingerprint_and_cannot_be_changed_afterwards(
    model: nn.Module, tmp_path: Path
) -> None:
    card = save(tmp_path / "a", model)
    other = save(tmp_path / "b", model, model_kwargs=TINY | {"init_values": 0.25})
    changed = (tmp_path / "b/model.json").read_text()
    (tmp_path / "a/model.json").write_text(changed)

    assert card.fingerprint != other.fingerprint
    with pytest.raises(EncoderError, match=r"model.json was changed"):
        registry.load(str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"card": replace(CARD, dim=64)}, "says dim 64, but the model has 32"),
        ({"card": replace(CARD, input_px=56)}, "says input_px 56, but the model has 28"),
        ({"card": replace(CARD, patch_px=7)}, "says patch_px 7, but the model has 14"),
        ({"card": replace(CARD, pooling="none")}, "pooling none"),
        ({"model_kwargs": {}}, "misshapen"),
        ({"model_kwargs": TINY | {"depth": 2}}, "unexpected"),
        ({"model_kwargs": TINY | {"nonsense": 1}}, "timm cannot build"),
        ({"timm_name": "vit_of_nobody"}, "timm cannot build 'vit_of_nobody'"),
        ({"dtype": "int4"}, "dtype must be fp32 or fp16"),
    ],
)
def test_what_does_not_belong_together_is_not_written(
    changes: dict[str, Any], message: str, model: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(EncoderError, match=message):
        save(tmp_path / "e", model, **changes)
    assert not (tmp_path / "e/card.json").exists()


def test_weights_that_half_precision_cannot_hold_are_refused(
    model: nn.Module, tmp_path: Path
) -> None:
    nn.init.constant_(model.norm.bias, 1e6)  # type: ignore[union-attr, arg-type]
    with pytest.raises(EncoderError, match="not finite as fp16"):
        save(tmp_path / "e", model, dtype="fp16")
