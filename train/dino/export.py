"""From a run to an encoder: adapters merged, guards checked, weights and card written."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from encoder.card import EncoderCard
from encoder.networks.export import save
from train.config import TrainConfig
from train.dino.model import Start
from train.dino.sharding import whole
from train.dino.watch import Look


class WorseThanParent(RuntimeError):
    """An encoder that the guards do not let out."""


def merged(vit: nn.Module) -> dict[str, Tensor]:
    """The transformer's tensors by timm's names, with adapters folded into the weights.

    Of a sharded one they are put together, for which all processes have to call it.
    """
    if any("lora_" in name for name, _ in vit.named_parameters()):
        vit = deepcopy(vit)
        _fold(vit)
    state: dict[str, Tensor] = whole(vit.state_dict())
    return {name: tensor.detach().cpu() for name, tensor in state.items()}


def _fold(copy: nn.Module) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(copy.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent = copy.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())


def guard(config: TrainConfig, parent: Look, chosen: Look, collapse: str | None) -> None:
    """Let an encoder out only if it is no worse than its parent in the probe.

    Raises:
        WorseThanParent: says by how much, and how to export it all the same.
    """
    if config.force:
        return
    how = "Train longer, change the settings, or export it all the same with --force"
    if collapse:
        raise WorseThanParent(f"the run collapsed: {collapse}. {how}")
    if parent.knn is not None and chosen.knn is not None and chosen.knn < parent.knn:
        raise WorseThanParent(
            f"the best checkpoint (step {chosen.step}) has a kNN score of {chosen.knn:.4f}; "
            f"what it started from has {parent.knn:.4f}. {how}"
        )


def with_guide(
    state: Mapping[str, Tensor], guide: Mapping[str, Tensor], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and arguments of a transformer whose vector is what the guide's head predicts.

    Args:
        state: The transformer's tensors.
        guide: The head's weight and bias; empty without a guide.
        kwargs: What differs from timm's model.
    """
    if not guide:
        return dict(state), dict(kwargs)
    head = {f"project.{name}": tensor for name, tensor in guide.items()}
    return {**state, **head}, {**kwargs, "project": len(guide["bias"])}


def export(
    folder: Path,
    config: TrainConfig,
    start: Start,
    state: Mapping[str, Tensor],
    note: str,
    guide: Mapping[str, Tensor] | None = None,
) -> EncoderCard:
    """Write `weights.safetensors` and, last, `card.json`.

    Args:
        folder: Where to.
        config: Of the run.
        start: What the run started from.
        state: The transformer's tensors (`merged`).
        note: For the card: what was trained and how it scored.
        guide: The head that predicts the guide's numbers, if there was one.
    """
    tensors, kwargs = with_guide(state, guide or {}, start.kwargs)
    parent = start.parent
    card = EncoderCard(
        id=config.name or config.out.resolve().name,
        architecture=start.timm_name,
        dim=kwargs.get("project") or int(tensors["norm.weight"].shape[0]),
        input_px=start.img_size,
        mean=start.mean,
        std=start.std,
        resample=config.resample,
        pooling="cls" if config.distils else "mean",  # the token that the losses trained
        patch_px=int(start.vit.patch_embed.patch_size[0]),  # type: ignore[union-attr, index]
        field_of_view_um=config.field_of_view_um,
        licence=config.licence,
        source=f"trained from {parent.id if parent else 'random weights'}",
        notes=note,
    )
    return save(
        folder, card, tensors, timm_name=start.timm_name, img_size=start.img_size,
        model_kwargs=kwargs,
    )  # fmt: skip
