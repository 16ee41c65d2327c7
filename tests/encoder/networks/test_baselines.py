"""The papers' baselines load from the layouts in which they are published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from encoder.contract import EncoderError
from encoder.networks import baselines, checkpoint, published, vit
from encoder.networks.engines import Torch

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vit, "choose", lambda forward, device, side: Torch(forward, device))


@pytest.fixture(name="images")
def _images(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)]


def stirred(model: nn.Module) -> nn.Module:
    """Weights and statistics that no two layers share."""
    made = torch.Generator().manual_seed(3)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and "index" not in name and "mask" not in name:
            noise = torch.randn(tensor.shape, generator=made) * 0.02
            tensor.add_(noise.abs() if "running_var" in name else noise)
    return model.eval()


def normalised(images: list[np.ndarray]) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(np.stack(images)).float() / 255 - mean) / std).permute(0, 3, 1, 2)


def test_torchvisions_resnet50_gives_its_pooled_features_whole_and_truncated(
    images: list[np.ndarray], tmp_path: Path
) -> None:
    from torchvision.models import resnet

    model: Any = stirred(resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1]))  # one block a stage
    torch.save(model.state_dict(), tmp_path / "resnet50-0676ba61.pth")
    stages = [model.conv1, model.bn1, model.relu, model.maxpool, model.layer1, model.layer2]
    for truncated, width in ((False, 2048), (True, 1024)):
        one = replace(baselines.resnet50(truncated), kwargs={"layers": (1, 1, 1, 1)})

        card, network = one.build(one.card, tmp_path / "resnet50-0676ba61.pth", "cpu")

        last = [model.layer3] if truncated else [model.layer3, model.layer4]
        with torch.no_grad():
            wanted = nn.Sequential(*stages, *last)(normalised(images)).mean((2, 3)).numpy()
        found = network.vectors(images)
        assert found.shape == (1, width) == (1, card.dim)
        assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


def old_names(model: nn.Module) -> State:
    """A Swin transformer as timm 0.5 saved it, with what it kept beside the weights."""
    state = {}
    for name, tensor in model.state_dict().items():
        if ".downsample." in name:
            stage, _, rest = name.removeprefix("layers.").partition(".")
            name = f"layers.{int(stage) - 1}.{rest}"
        state[name] = tensor
    for block in ("layers.0.blocks.0", "layers.1.blocks.0"):
        state[f"{block}.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.long)
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    return state


def test_ctranspath_loads_from_its_published_layout(
    images: list[np.ndarray], tmp_path: Path
) -> None:
    one = replace(baselines.CTRANSPATH, kwargs={"depths": (2, 1, 1, 1)})
    model = stirred(one.make(one.kwargs))
    state = old_names(model)
    assert "layers.0.downsample.reduction.weight" in state
    assert state["patch_embed.proj.0.weight"].shape == (12, 3, 3, 3)
    assert state["patch_embed.proj.6.weight"].shape == (96, 24, 1, 1)
    torch.save({"model": state}, tmp_path / "ctranspath.pth")

    card, network = one.build(one.card, tmp_path / "ctranspath.pth", "cpu")

    with torch.no_grad():
        wanted = model(normalised(images)).numpy()
    assert card.dim == wanted.shape[1] == 768
    assert np.abs(network.vectors(images) - wanted).max() < 1e-4


OLD = {
    "layers.": "encoder.layer.", "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key", "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense", "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}  # fmt: skip
"""Names of version 5 of transformers to those of the file that Owkin published."""


def test_phikon_gives_the_class_token_of_transformers_vit(
    images: list[np.ndarray], tmp_path: Path
) -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(num_hidden_layers=1, layer_norm_eps=1e-12)
    model = stirred(ViTModel(config, add_pooling_layer=False))
    state = new = dict(model.state_dict())
    for theirs, old in OLD.items():
        state = {name.replace(theirs, old): tensor for name, tensor in state.items()}
    assert "encoder.layer.0.attention.attention.query.weight" in state
    assert checkpoint.to_timm(new).keys() == checkpoint.to_timm(state).keys()
    torch.save(state, tmp_path / "pytorch_model.bin")
    one = replace(published.PHIKON, kwargs={"depth": 1})

    card, network = one.build(one.card, tmp_path / "pytorch_model.bin", "cpu")

    cls, patches = network.tokens(images)
    with torch.no_grad():
        wanted = model(normalised(images)).last_hidden_state.numpy()
    assert card.patch_px == 16
    assert np.abs(cls - wanted[:, 0]).max() < 1e-3
    assert np.abs(patches.reshape(1, 196, 768) - wanted[:, 1:]).max() < 1e-3


def test_dinov2_with_registers_loads_from_metas_layout(
    images: list[np.ndarray], tmp_path: Path
) -> None:
    one = replace(published.dinov2("s", registers=True), kwargs={"depth": 1, "init_values": 0.5})
    model = stirred(vit.timm_model(one.card.architecture, 224, one.kwargs))
    ours = model.state_dict()
    place = torch.randn(1, 1, 384)
    state = {
        name: tensor for name, tensor in ours.items() if name not in ("reg_token", "pos_embed")
    }
    state |= {
        "register_tokens": ours["reg_token"], "mask_token": torch.zeros(1, 384),
        "cls_token": ours["cls_token"] - place,
        "pos_embed": torch.cat([place, ours["pos_embed"]], dim=1),
    }  # fmt: skip
    torch.save(state, tmp_path / "dinov2_vits14_reg4_pretrain.pth")

    card, network = one.build(one.card, tmp_path / "dinov2_vits14_reg4_pretrain.pth", "cpu")

    cls, patches = network.tokens(images)
    with torch.no_grad():
        wanted = model.forward_features(normalised(images)).numpy()
    assert card.id == "dinov2-s-registers"
    assert np.abs(cls - wanted[:, 0]).max() < 1e-4
    assert np.abs(patches.reshape(1, 256, 384) - wanted[:, 5:]).max() < 1e-4


def test_the_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    one = replace(baselines.CTRANSPATH, kwargs={"depths": (1, 1, 1, 1)})
    with pytest.raises(EncoderError, match="does not fit this encoder"):
        one.build(one.card, tmp_path / "w.pth", "cpu")
