"""A weights file of any published layout to the names and shapes of a timm vision transformer."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoder.contract import EncoderError

State = dict[str, Tensor]

DINOV2_TO_TIMM = ((".mlp.w12.", ".mlp.fc1."), (".mlp.w3.", ".mlp.fc2."))
"""The giant's SwiGLU layers, the only block names in which DINOv2 and timm differ."""
TRANSFORMERS_TO_TIMM = (
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.", ""),
    (r"^(encoder\.layer|layers)\.", "blocks."),
    (r"\.attention\.attention\.(q)uery\.|\.attention\.(q)_proj\.", ".attn.q."),
    (r"\.attention\.attention\.(k)ey\.|\.attention\.(k)_proj\.", ".attn.k."),
    (r"\.attention\.attention\.(v)alue\.|\.attention\.(v)_proj\.", ".attn.v."),
    (r"\.attention\.output\.dense\.|\.attention\.o_proj\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^layernorm\.", "norm."),
)
"""Names of Hugging Face's ViT as patterns, in the order in which they are replaced."""
WRAPPERS = ("teacher", "state_dict_ema", "model_ema", "model", "state_dict")
"""Entries under which trainers keep the tensors, the one that is taken first where several are."""
SHELLS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of a tensor's name that are added by running in parallel, compiled or checkpointed."""
PREFIXES = {
    "teacher.": ("student.", "dino_loss.", "ibot_patch_loss.", "koleo_loss."),
    "model.": (),
    "backbone.": ("dino_head.", "ibot_head.", "head."),
}
"""What may stand before the encoder's names, and what may lie beside it and is left out."""
CHUNKED = re.compile(r"blocks\.(\d+)\.(\d+)\.(.+)")


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
            f"{path} holds more than tensors, or is damaged, and was not unpickled; of a training "
            f"run choose the teacher (DINOv2: eval/*/teacher_checkpoint.pth): {error}"
        ) from error
    except Exception as error:  # damaged files raise a dozen kinds
        raise EncoderError(f"{path} cannot be read as weights: {error}") from error
    if not isinstance(raw, dict):
        raise EncoderError(f"{path} must hold a dictionary, got {type(raw).__name__}")
    return raw


def backbone(raw: Mapping[str, Any], where: str) -> State:
    """The encoder's own tensors, whatever they are wrapped in.

    Accepts what the trainers of DINOv2, DinoBloom and RedDino write, and timm and Lightning:
    entries of `WRAPPERS`, student and teacher in one file (the teacher is taken), heads and
    losses beside the backbone (left out), names of parallel and compiled models, and flat names.

    Args:
        raw: What `read` returns.
        where: Named in errors.

    Raises:
        EncoderError: something besides tensors, one process's part of a sharded model, or names
            that are neither encoder nor one of the known parts beside it.
    """
    inner = raw
    while found := [name for name in WRAPPERS if isinstance(inner.get(name), Mapping)]:
        inner = inner[found[0]]
    odd = [name for name, tensor in inner.items() if not isinstance(tensor, Tensor)]
    if odd or not inner:
        came = f"other values at {odd[:3]}" if odd else "nothing"
        raise EncoderError(f"{where}: expected named tensors, got {came}")
    if flat := [name for name in inner if name.endswith("flat_param")]:
        raise EncoderError(
            f"{where} is one process's part of a sharded model ({flat[0]}): the layers cannot be "
            "told apart; use the whole teacher (DINOv2: eval/*/teacher_checkpoint.pth)"
        )
    state = {
        ".".join(part for part in name.split(".") if part not in SHELLS): tensor
        for name, tensor in inner.items()
    }
    for prefix, beside in PREFIXES.items():
        if any(name.startswith(prefix) for name in state):
            strange = [n for n in state if not n.startswith((prefix, *beside))]
            if strange:
                raise EncoderError(
                    f"{where}: names beside {prefix[:-1]} that are no known part: {strange[:3]}"
                )
            state = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    return state


def to_timm(state: State) -> State:
    """DINOv2's names and those of transformers' ViT to timm's; timm's pass unchanged.

    DINOv2 adds a position to the class token and none to its registers; timm's model with
    registers has no position for either, so that the class token takes its own in.

    DINOv2 trains blocks in chunks: `blocks.1.3.` is block 3, in chunk 1. Some copies of it count
    anew in every chunk, so blocks are counted in the order of both numbers.
    """
    state = _of_transformers(state)
    if (registers := state.pop("register_tokens", None)) is not None:
        positions = state.pop("pos_embed")
        state |= {"reg_token": registers, "pos_embed": positions[:, 1:]}
        state["cls_token"] = state["cls_token"] + positions[:, :1]
    chunked = {name: found for name in state if (found := CHUNKED.fullmatch(name))}
    places = sorted({(int(found[1]), int(found[2])) for found in chunked.values()})
    renamed = {}
    for name, tensor in state.items():
        if found := chunked.get(name):
            name = f"blocks.{places.index((int(found[1]), int(found[2])))}.{found[3]}"
        for theirs, ours in DINOV2_TO_TIMM:
            name = name.replace(theirs, ours)
        if name != "mask_token":  # used in training only
            renamed[name] = tensor
    return renamed


def _of_transformers(state: State) -> State:
    """A copy, with the names of Hugging Face's ViT (of version 4 or 5) made timm's."""
    if not any(name.endswith("embeddings.cls_token") for name in state):
        return dict(state)
    renamed: State = {}
    for name, tensor in state.items():
        if name.startswith("pooler."):  # a layer behind the token, which nobody uses
            continue
        name = name.removeprefix("vit.")
        for theirs, ours in TRANSFORMERS_TO_TIMM:
            name = re.sub(theirs, ours, name)
        renamed[name] = tensor
    for name in [one for one in renamed if ".attn.q." in one]:
        three = [renamed.pop(name.replace(".q.", f".{part}.")) for part in "qkv"]
        renamed[name.replace(".q.", ".qkv.")] = torch.cat(three)
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
