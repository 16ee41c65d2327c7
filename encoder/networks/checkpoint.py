"""A weights file of any published layout to the names and shapes of a timm vision transformer."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoder.contract import EncoderError

State = dict[str, Tensor]

DINOV2_TO_TIMM = ((".mlp.w12.", ".mlp.fc1."), (".mlp.w3.", ".mlp.fc2."))
"""The giant's SwiGLU layers, the only block names in which DINOv2 and timm differ."""
HEADS = ("dino_head.", "ibot_head.")
"""Parts of a training checkpoint that are no part of the encoder."""


def read(path: Path) -> dict[str, Any]:
    """Everything in a weights file, on the CPU, without running code from it.

    Raises:
        EncoderError: damaged, or a pickle that holds more than tensors and plain containers.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        raw = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise EncoderError(
            f"{path} holds more than tensors, or is damaged, and was not unpickled: {error}"
        ) from error
    except Exception as error:  # damaged files raise a dozen kinds
        raise EncoderError(f"{path} cannot be read as weights: {error}") from error
    if not isinstance(raw, dict):
        raise EncoderError(f"{path} must hold a dictionary, got {type(raw).__name__}")
    return raw


def backbone(raw: Mapping[str, Any], where: str) -> State:
    """The encoder's own tensors, whatever they are wrapped in.

    Accepts a training checkpoint (`{"teacher": ...}` with `backbone.` names and heads, which
    are dropped), the same without its wrapper, and flat names.

    Raises:
        EncoderError: something besides tensors, or names that are neither backbone nor head.
    """
    inner = raw.get("teacher", raw)
    if not isinstance(inner, Mapping):
        raise EncoderError(f"{where}: 'teacher' must hold tensors, got {type(inner).__name__}")
    if any(name.startswith("backbone.") for name in inner):
        strange = [n for n in inner if not n.startswith(("backbone.", *HEADS))]
        if strange:
            raise EncoderError(f"{where}: names beside backbone and heads: {strange[:3]}")
        inner = {
            name.removeprefix("backbone."): tensor
            for name, tensor in inner.items()
            if name.startswith("backbone.")
        }
    odd = [name for name, tensor in inner.items() if not isinstance(tensor, Tensor)]
    if odd or not inner:
        came = f"other values at {odd[:3]}" if odd else "nothing"
        raise EncoderError(f"{where}: expected named tensors, got {came}")
    return dict(inner)


def to_timm(state: State) -> State:
    """DINOv2 names (without registers) to timm names; timm names pass unchanged."""
    renamed = {}
    for name, tensor in state.items():
        for theirs, ours in DINOV2_TO_TIMM:
            name = name.replace(theirs, ours)
        if name != "mask_token":  # used in training only
            renamed[name] = tensor
    return renamed


def fit_positions(state: State, model: torch.nn.Module, where: str) -> str | None:
    """Resample `pos_embed` in place to the model's grid, where it is of another.

    Returns:
        How it was resampled, for the card; `None` when it already fitted.
    """
    from timm.layers import resample_abs_pos_embed

    have, want = state.get("pos_embed"), getattr(model, "pos_embed", None)
    if have is None or not isinstance(want, Tensor):
        return None  # the strict load says what is missing
    if have.shape[1] == want.shape[1]:
        return None
    prefix = 0 if getattr(model, "no_embed_class", False) else int(model.num_prefix_tokens)  # type: ignore[arg-type]
    sides = [round((n.shape[1] - prefix) ** 0.5) for n in (have, want)]
    if any(side**2 + prefix != n.shape[1] for side, n in zip(sides, (have, want), strict=True)):
        raise EncoderError(
            f"{where}: {have.shape[1]} position embeddings are no square grid and cannot be "
            f"resampled to {want.shape[1]}"
        )
    old, new = sides
    state["pos_embed"] = resample_abs_pos_embed(
        have.float(), [new, new], [old, old], prefix, interpolation="bicubic", antialias=True
    )
    return f"bicubic-antialias-{old}to{new}"


def load_strict(model: torch.nn.Module, state: State, where: str) -> None:
    """Put every tensor into its place in float32; nothing may be missing or left over.

    Raises:
        EncoderError: names the first missing, unexpected and misshapen tensors.
    """
    wanted = model.state_dict()
    missing = sorted(set(wanted) - set(state))
    left = sorted(set(state) - set(wanted))
    misshapen = [
        f"{name} {tuple(state[name].shape)} for {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    wrong = [
        f"{len(names)} {word} ({', '.join(names[:2])})"
        for word, names in (("missing", missing), ("unexpected", left), ("misshapen", misshapen))
        if names
    ]
    if wrong:
        raise EncoderError(
            f"{where} does not fit this encoder: {'; '.join(wrong)}; "
            "is it the file of another size or family?"
        )
    model.load_state_dict(
        {name: t.float() if t.is_floating_point() else t for name, t in state.items()},
        strict=True,
        assign=True,
    )
