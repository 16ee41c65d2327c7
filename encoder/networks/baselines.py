"""The networks that the papers compare with and that are no plain transformer, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoder.card import EncoderCard
from encoder.contract import Network, need_torch
from encoder.download import WeightsFile, locate

if TYPE_CHECKING:
    from torch import Tensor, nn

TORCHVISION = "https://download.pytorch.org/models"
MERGED = ".downsample."
"""Part of the names of a Swin transformer's merging of patches."""
MADE_ANEW = ("attn_mask", "relative_position_index")
"""Tensors of old Swin checkpoints that follow from the architecture."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A network whose weights others publish, with the vector that its own head would see."""

    card: EncoderCard
    files: tuple[WeightsFile, ...]
    """The same weights in their published layouts; the first is the one that is downloaded."""
    make: Callable[[Mapping[str, Any]], nn.Module]
    """The network without weights, from arguments for timm."""
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    """Published names to timm's; leaves out what this network does not have."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments for timm."""

    def build(
        self, card: EncoderCard, weights: Path | None, device: str
    ) -> tuple[EncoderCard, Network]:
        """Find or fetch the weights and load them."""
        need_torch(f"encoder {card.id!r}")
        path, digest = locate(card.id, self.files, weights)
        from encoder.networks import checkpoint, vit

        model = self.make(self.kwargs)
        state = self.rename(checkpoint.backbone(checkpoint.read(path), str(path)))
        checkpoint.load_strict(model, state, str(path))
        card = replace(card, weights_sha256=digest)
        return card, vit.network(card, model, "head", device)


def _resnet(kwargs: Mapping[str, Any]) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model("resnet50", pretrained=False, num_classes=0, **kwargs)
    return model


def _truncated(kwargs: Mapping[str, Any]) -> nn.Module:
    from torch import nn

    model: Any = _resnet(kwargs)
    model.layer4 = nn.Identity()
    model.num_features = 1024
    return model  # type: ignore[no-any-return]


def _without(*parts: str) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: one for name, one in state.items() if not name.startswith(parts)}

    return rename


def resnet50(truncated: bool) -> Baseline:
    """ResNet50 with torchvision's first ImageNet weights (He et al. 2016).

    Args:
        truncated: Without the fourth stage: the mean of the third, 1,024 numbers (CLAM's
            extractor; "ResNet 50 trunc" in DinoBloom's tables).
    """
    names = ("resnet50-0676ba61.pth", "resnet50-19c8e357.pth")  # one network, saved twice
    return Baseline(
        card=EncoderCard(
            id="resnet50-truncated" if truncated else "resnet50",
            architecture="resnet50, three stages" if truncated else "resnet50",
            dim=1024 if truncated else 2048,
            resample="bilinear",
            pooling="mean",
            licence="BSD-3-Clause",
            source=f"{TORCHVISION}/{names[0]}",
            notes="Natural images (ImageNet-1k, with labels).",
        ),
        files=tuple(WeightsFile(name=name, url=f"{TORCHVISION}/{name}") for name in names),
        make=_truncated if truncated else _resnet,
        rename=_without("fc.", "layer4.") if truncated else _without("fc."),
    )


def _swin(kwargs: Mapping[str, Any]) -> nn.Module:
    import timm

    from encoder.networks.stem import HalvingStem

    model: nn.Module = timm.create_model(
        "swin_tiny_patch4_window7_224",
        pretrained=False,
        num_classes=0,
        embed_layer=HalvingStem,
        **kwargs,
    )
    return model


def _old_swin(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of timm 0.5 to those of now, which merges patches before a stage and not after it."""
    old = any(name.startswith("layers.0.downsample.") for name in state)
    renamed = {}
    for name, one in state.items():
        if name.rpartition(".")[2] in MADE_ANEW or name.startswith("head."):
            continue
        if old and MERGED in name and name.startswith("layers."):
            stage, _, rest = name.removeprefix("layers.").partition(".")
            name = f"layers.{int(stage) + 1}.{rest}"
        renamed[name] = one
    return renamed


CTRANSPATH = Baseline(
    card=EncoderCard(
        id="ctranspath",
        architecture="swin_tiny_patch4_window7_224, stem of convolutions",
        dim=768,
        resample="bilinear",
        pooling="mean",
        licence="GPL-3.0",
        source="https://github.com/Xiyue-Wang/TransPath",
        notes="H&E tissue (TCGA, PAIP), Wang et al. 2022. Licence as stated by its repository.",
    ),
    files=(
        WeightsFile(
            name="ctranspath.pth",
            url="https://huggingface.co/jamesdolezal/CTransPath/resolve/main/ctranspath.pth",
        ),
    ),
    make=_swin,
    rename=_old_swin,
)

ALL = (resnet50(False), resnet50(True), CTRANSPATH)
