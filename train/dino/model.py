"""Student and teacher: a timm vision transformer with the heads of DINO and iBOT."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint as recomputed

from encoder.card import EncoderCard
from encoder.contract import EncoderError
from train.config import TrainConfig

SIZES = {
    "ti": ("vit_small_patch14_dinov2", {"embed_dim": 192, "depth": 12, "num_heads": 3}),
    "s": ("vit_small_patch14_dinov2", {"embed_dim": 384, "depth": 12, "num_heads": 6}),
    "b": ("vit_base_patch14_dinov2", {"embed_dim": 768, "depth": 12, "num_heads": 12}),
    "l": ("vit_large_patch14_dinov2", {"embed_dim": 1024, "depth": 24, "num_heads": 16}),
    "g": ("vit_giant_patch14_dinov2", {"embed_dim": 1536, "depth": 40, "num_heads": 24}),
}
"""Size to timm model and what differs from it."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LORA_TARGETS = ["qkv", "attn.proj", "fc1", "fc2"]
"""The linear layers that adapters are put beside."""


@dataclass(frozen=True)
class Start:
    """A transformer to train, and what is needed to write it down again."""

    vit: nn.Module
    timm_name: str
    kwargs: dict[str, Any]
    img_size: int
    parent: EncoderCard | None
    """The card of the encoder it starts from; `None` for random weights."""

    @property
    def mean(self) -> tuple[float, float, float]:
        """Of the normalisation of red, green and blue: the parent's, or ImageNet's."""
        return self.parent.mean if self.parent else IMAGENET_MEAN

    @property
    def std(self) -> tuple[float, float, float]:
        """The same of the standard deviations."""
        return self.parent.std if self.parent else IMAGENET_STD


def load_start(config: TrainConfig) -> Start:
    """The transformer that a run starts from, its positions laid out for the last stage.

    Raises:
        EncoderError: an encoder that is unknown, or no vision transformer.
    """
    side = config.plan()[-1].global_px
    if config.start == "random":
        return _random(config, side)
    from encoder.networks import checkpoint, vit

    card, name, kwargs, state = _registered(config.start)
    model = vit.bare_model(name, side, kwargs)
    checkpoint.fit_positions(state, model, config.start)
    checkpoint.load_strict(model, state, config.start)
    return Start(model, name, kwargs, side, card)


def _random(config: TrainConfig, side: int) -> Start:
    from encoder.networks.vit import timm_model

    name, facts = SIZES[config.size]
    kwargs: dict[str, Any] = {**facts, "patch_size": config.patch_px}
    if config.stem != "patch":
        kwargs["stem"] = config.stem
    kwargs["init_values"] = config.layer_scale  # timm drops None and takes its own default
    given = {"embed_dim": config.embed_dim, "depth": config.depth, "num_heads": config.heads}
    kwargs.update({k: v for k, v in given.items() if v is not None})
    if side % config.patch_px:
        raise EncoderError(f"global_px {side} is no multiple of patch_px {config.patch_px}")
    if kwargs["embed_dim"] % kwargs["num_heads"]:
        raise EncoderError(
            f"embed_dim {kwargs['embed_dim']} is no multiple of heads {kwargs['num_heads']}"
        )
    torch.manual_seed(config.seed)
    return Start(timm_model(name, side, kwargs), name, kwargs, side, None)


def _registered(start: str) -> tuple[EncoderCard, str, dict[str, Any], dict[str, Tensor]]:
    from encoder import registry
    from encoder.networks import checkpoint

    folder = registry.shipped().get(start) or Path(start)
    if (folder / "card.json").is_file():
        from encoder.networks.export import MODEL, load_model

        card, model = load_model(folder)
        facts = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        return card, facts["timm_name"], facts["kwargs"], dict(model.state_dict())
    from encoder.download import locate
    from encoder.networks.published import ALL

    found = next((p for p in ALL if p.card.id == start), None)
    if found is None:
        names = ", ".join(p.card.id for p in ALL)
        raise EncoderError(
            f"cannot train from {start!r}: known are random, {names}, or a folder with a card.json"
        )
    path, _ = locate(found.card.id, found.files, None)
    raw = checkpoint.backbone(checkpoint.read(path), str(path))
    return (
        found.card,
        found.card.architecture,
        dict(found.kwargs),
        dict(checkpoint.to_timm(raw)),
    )


class Backbone(nn.Module):
    """A timm vision transformer that can hide patches and skip residual branches."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit: Any
        self.vit = vit
        facts: Any = vit
        self.mask_token = nn.Parameter(torch.zeros(1, 1, int(facts.embed_dim)))
        self.patch = int(facts.patch_embed.patch_size[0])
        self.prefix = int(facts.num_prefix_tokens)
        self.steps = PLAIN
        self.recompute = False
        """Whether what happens inside a block is computed again for the gradients, not kept."""

    def forward(self, x: Tensor, hidden: Tensor | None = None, drop: float = 0.0) -> Tensor:
        """Images to normalised tokens.

        Args:
            x: n x 3 x side x side, normalised; side a multiple of the patch.
            hidden: n x patches, true where the mask token takes the patch's place.
            drop: Share of images that skip each residual branch.

        Returns:
            n x (prefix + patches) x dim; the class token first.
        """
        vit = self.vit
        grid = (x.shape[2] // self.patch, x.shape[3] // self.patch)
        tokens = vit.patch_embed.proj(x).flatten(2).transpose(1, 2)
        if hidden is not None:
            mask = hidden.unsqueeze(-1)
            tokens = torch.where(mask, self.mask_token.to(tokens.dtype), tokens)
        tokens = vit.norm_pre(self._with_positions(tokens, grid))
        for block in vit.blocks:
            tokens = self._through(block, tokens, drop)
        normed: Tensor = vit.norm(tokens)
        return normed

    def _through(self, block: Any, tokens: Tensor, drop: float) -> Tensor:
        sharded = isinstance(block, FSDPModule)  # then its call gathers the weights first
        call: Callable[..., Tensor] = block if sharded else partial(run_block, block)
        if not (self.recompute and torch.is_grad_enabled()):
            return call(tokens, drop, self.steps)
        again: Tensor  # random numbers are put back, so that the same images skip a branch again
        again = recomputed(call, tokens, drop, self.steps, use_reentrant=False)
        return again

    def _with_positions(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        vit = self.vit
        positions: Tensor = vit.pos_embed
        bare = bool(vit.no_embed_class)
        if grid != tuple(vit.patch_embed.grid_size):
            from timm.layers import resample_abs_pos_embed

            positions = resample_abs_pos_embed(
                positions,
                new_size=list(grid),
                old_size=list(vit.patch_embed.grid_size),
                num_prefix_tokens=0 if bare else self.prefix,
            )
        first = [vit.cls_token.expand(len(tokens), -1, -1)]
        if vit.reg_token is not None:
            first.append(vit.reg_token.expand(len(tokens), -1, -1))
        if bare:
            return torch.cat([*first, tokens + positions], dim=1)
        return torch.cat([*first, tokens], dim=1) + positions


def attend(block: Any, x: Tensor) -> Tensor:
    """What the first branch of a block adds."""
    return block.ls1(block.attn(block.norm1(x)))  # type: ignore[no-any-return]


def mix(block: Any, x: Tensor) -> Tensor:
    """What the second branch of a block adds."""
    return block.ls2(block.mlp(block.norm2(x)))  # type: ignore[no-any-return]


def whole_block(block: Any, x: Tensor) -> Tensor:
    """One transformer block."""
    x = x + attend(block, x)
    return x + mix(block, x)


@dataclass(frozen=True)
class Steps:
    """The parts of a block, as they are or compiled."""

    attend: Callable[[Any, Tensor], Tensor] = attend
    mix: Callable[[Any, Tensor], Tensor] = mix
    whole: Callable[[Any, Tensor], Tensor] = whole_block


PLAIN = Steps()


def compiled_steps() -> Steps:
    """Compiled once for each shape of the views; all blocks share it."""
    return Steps(*(torch.compile(f, dynamic=False) for f in (attend, mix, whole_block)))


def run_block(block: Any, x: Tensor, drop: float, steps: Steps = PLAIN) -> Tensor:
    """One transformer block; with `drop`, each branch runs on a random part of the images only.

    The part's branch is scaled up by images / part, so that the sum keeps its expectation
    (DINOv2's batched stochastic depth): what is dropped is not computed.
    """
    if drop == 0:
        return steps.whole(block, x)
    x = _part(x, lambda y: steps.attend(block, y), drop)
    return _part(x, lambda y: steps.mix(block, y), drop)


def _part(x: Tensor, branch: Callable[[Tensor], Tensor], drop: float) -> Tensor:
    keep = max(round(len(x) * (1 - drop)), 1)
    chosen = torch.randperm(len(x), device=x.device)[:keep]
    added = branch(x[chosen])
    return x.index_add(0, chosen, added.to(x.dtype), alpha=len(x) / keep)


class Head(nn.Module):
    """Tokens to scores: an MLP, length 1, then the cosine to unit prototypes times a gain."""

    def __init__(self, dim: int, hidden: int, bottleneck: int, layers: int, prototypes: int):
        super().__init__()
        widths = [dim, *[hidden] * (layers - 1), bottleneck]
        parts: list[nn.Module] = []
        for at, (a, b) in enumerate(pairwise(widths)):
            parts += [nn.Linear(a, b)] + ([nn.GELU()] if at < layers - 1 else [])
        self.mlp = nn.Sequential(*parts)
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        self.gain = nn.Parameter(torch.ones(prototypes, 1))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.kaiming_uniform_(self.prototypes, a=5**0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """n x dim to n x prototypes."""
        rows = functional.normalize(self.mlp(tokens), dim=-1, eps=1e-6)
        return functional.linear(rows, functional.normalize(self.prototypes, dim=-1) * self.gain)


class Network(nn.Module):
    """Backbone and heads, as the student and as the teacher have them."""

    def __init__(self, backbone: Backbone, config: TrainConfig, guide_dim: int = 0) -> None:
        super().__init__()
        self.backbone = backbone
        deep = len(backbone.vit.blocks) > 24
        backbone.recompute = config.recompute == "on" or (config.recompute == "auto" and deep)
        dim = int(backbone.vit.embed_dim)
        self.guide_head = nn.Linear(dim, guide_dim) if guide_dim else None
        self.dino_head = Head(
            dim,
            config.head_hidden,
            config.head_bottleneck,
            config.head_layers,
            config.prototypes,
        )
        self.distils = config.distils
        self.contrast_head: nn.Sequential | None = None
        if config.contrast_weight:
            self.contrast_head = nn.Sequential(
                nn.Linear(dim, config.head_hidden),
                nn.GELU(),
                nn.Linear(config.head_hidden, config.head_bottleneck),
            )
        self.ibot_head: Head | None = None
        if config.separate_ibot_head and config.ibot_weight:
            self.ibot_head = Head(
                dim,
                config.head_hidden,
                config.ibot_bottleneck or config.head_bottleneck,
                config.head_layers,
                config.ibot_prototypes or config.prototypes,
            )

    def forward(
        self,
        globals_: Tensor,
        hidden: Tensor | None,
        index: Tensor | None,
        locals_: Tensor | None = None,
        drop: float = 0.0,
        frozen: bool = False,
    ) -> dict[str, Tensor]:
        """All views through the backbone, and only what a loss needs through the heads.

        Args:
            globals_: Both global views of all images, first views first.
            hidden: Masked patches of each, or `None`.
            index: Positions of the masked patches (`Masks.index`), or `None` without iBOT.
            locals_: Local views, first views first, or `None`.
            drop: Share of images that skip each residual branch.
            frozen: Whether the backbone keeps no gradients.

        Returns:
            `cls`: class tokens of the global views; `dino`: their scores; `local`: scores of
            the local views; `ibot`: scores of the masked patches; `contrast`: rows to compare
            the global views by; `guide`: predicted numbers. Without a distilling loss there are
            no scores.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            tokens = self.backbone(globals_, hidden, drop)
            local = self.backbone(locals_, None, drop)[:, 0] if locals_ is not None else None
        cls = tokens[:, 0]
        out = {"cls": cls}
        mean = tokens[:, self.backbone.prefix :].mean(dim=1)
        if self.guide_head is not None:
            out["guide"] = self.guide_head(mean)
        if self.contrast_head is not None:
            out["contrast"] = self.contrast_head(mean)
        if not self.distils:
            return out
        parts = [cls] + ([local] if local is not None else [])
        if index is not None:
            patches = tokens[:, self.backbone.prefix :].flatten(0, 1)[index]
            if self.ibot_head is None:
                parts.append(patches)
        scores = list(self.dino_head(torch.cat(parts)).split([len(part) for part in parts]))
        out["dino"] = scores.pop(0)
        if local is not None:
            out["local"] = scores.pop(0)
        if index is not None:
            out["ibot"] = scores.pop(0) if self.ibot_head is None else self.ibot_head(patches)
        return out

    def embed(self, x: Tensor) -> Tensor:
        """n x 3 x side x side, normalised, to n x dim: the token that the losses train."""
        tokens = self.backbone(x)
        if self.distils:
            return tokens[:, 0]  # type: ignore[no-any-return]
        # No loss trained the class token: the mean of the patches is what was learned.
        return tokens[:, self.backbone.prefix :].mean(dim=1)  # type: ignore[no-any-return]


def add_lora(vit: nn.Module, rank: int, alpha: float, dropout: float = 0.0) -> nn.Module:
    """Put adapters beside the linear layers and freeze the rest (Hu et al. 2022)."""
    from peft import LoraConfig, inject_adapter_in_model

    settings = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=LORA_TARGETS
    )
    changed: nn.Module = inject_adapter_in_model(settings, vit)
    for name, parameter in changed.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return changed


def build_networks(
    start: Start, config: TrainConfig, guide_dim: int = 0
) -> tuple[Network, Network]:
    """Student and teacher, equal at the start; the teacher takes no gradients.

    Args:
        start: The transformer.
        config: Of the run.
        guide_dim: How many numbers a guide has; 0 without one.
    """
    from copy import deepcopy

    torch.manual_seed(config.seed + 1)
    vit = start.vit
    if config.tuning == "lora":
        vit = add_lora(vit, config.lora_rank, config.lora_alpha)
    student = Network(Backbone(vit), config, guide_dim)
    teacher = deepcopy(student).requires_grad_(False)
    return student, teacher


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: all of it, if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def move_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher = momentum x teacher + (1 - momentum) x student, for what the student learns."""
    pairs = [
        (own_part(t), own_part(s))
        for t, s in zip(teacher.parameters(), student.parameters(), strict=True)
        if s.requires_grad
    ]
    torch._foreach_lerp_([t for t, _ in pairs], [s for _, s in pairs], 1 - momentum)
