"""From a run to an encoder: adapters merged, guards asked, weights and card written."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from torch import Tensor, nn

from encoder.card import EncoderCard
from encoder.export import save
from train.config import TrainConfig
from train.model import Start
from train.watch import Look


class WorseThanParent(RuntimeError):
    """An encoder that the guards do not let out."""


def merged(vit: nn.Module) -> dict[str, Tensor]:
    """The transformer's tensors by timm's names, with adapters folded into the weights."""
    copy = deepcopy(vit)
    if any("lora_" in name for name, _ in copy.named_parameters()):
        _fold(copy)
    return {name: tensor.detach().cpu() for name, tensor in copy.state_dict().items()}


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


def export(
    folder: Path, config: TrainConfig, start: Start, state: dict[str, Tensor], note: str
) -> EncoderCard:
    """Write `weights.safetensors` and, last, `card.json`.

    Args:
        folder: Where to.
        config: Of the run.
        start: What the run started from.
        state: The transformer's tensors (`merged`).
        note: For the card: what was trained and how it scored.
    """
    parent = start.parent
    facts = parent or EncoderCard(id="random", architecture=start.timm_name, dim=1)
    card = EncoderCard(
        id=config.name or config.out.resolve().name,
        architecture=start.timm_name,
        dim=int(state["norm.weight"].shape[0]),
        input_px=start.img_size,
        mean=facts.mean,
        std=facts.std,
        resample=config.resample,
        patch_px=int(start.vit.patch_embed.patch_size[0]),  # type: ignore[union-attr, index]
        field_of_view_um=config.field_of_view_um,
        licence=config.licence,
        source=f"trained from {parent.id if parent else 'random weights'}",
        notes=note,
    )
    return save(
        folder, card, state, timm_name=start.timm_name, img_size=start.img_size,
        model_kwargs=start.kwargs,
    )  # fmt: skip
