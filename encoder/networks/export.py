"""Our own encoders as folders: weights, what rebuilds the model, and the card, written last."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from encoder.card import EncoderCard
from encoder.contract import Encoder, EncoderError, Network
from encoder.download import WrongDigest, digest_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from encoder.features.joint import Beside

WEIGHTS, MODEL, CARD = "weights.safetensors", "model.json", "card.json"
MEASURED = "measured"
"""In `model.json`: the version of the numbers that stand beside the network."""


def save(
    folder: Path,
    card: EncoderCard,
    state_dict: Mapping[str, Tensor],
    *,
    timm_name: str,
    img_size: int,
    dtype: Literal["fp32", "fp16"] = "fp32",
    model_kwargs: Mapping[str, Any] | None = None,
    beside: Beside | None = None,
) -> EncoderCard:
    """Write an encoder so that `registry.load(folder)` gives the same vectors anywhere.

    Args:
        folder: Made if missing. Without a `card.json` it is unfinished and will not load.
        card: Its architecture and weights digest are filled in here.
        state_dict: The backbone's tensors by their timm names, nothing else.
        timm_name: The timm vision transformer, such as `vit_small_patch14_dinov2`, or
            `efficientnet-lite0`, which is ours (`encoder.networks.lite`).
        img_size: Side of the input, in pixels.
        dtype: How floating-point tensors are stored; they are computed with in float32 again.
        model_kwargs: Whatever differs from timm's model: depth, embed_dim, num_heads, ... Depth
            alone need not be given: the tensors tell it.
        beside: Measured numbers that stand beside the network's vector, see
        `encoder.features.joint`.

    Returns:
        The card as written.

    Raises:
        EncoderError: tensors, model and card do not belong together.
    """
    import torch

    from encoder.features.descriptors import VERSION
    from encoder.features.joint import tables
    from encoder.networks import checkpoint, lite

    kwargs = dict(model_kwargs or {})
    if timm_name != lite.NAME:
        kwargs.setdefault("depth", _depth(state_dict))
    kwargs.pop("img_size", None)
    kwargs.pop("num_classes", None)
    model = _bare(timm_name, img_size, kwargs)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    checkpoint.load_strict(model, state, f"the state dict for {folder}")
    _check_card(card, model, img_size, beside)
    facts = {"format": 1, "timm_name": timm_name, "img_size": img_size, "kwargs": kwargs}
    architecture = timm_name
    if beside is not None:
        state |= {name: torch.from_numpy(table) for name, table in tables(beside).items()}
        facts[MEASURED] = VERSION
        architecture = f"{timm_name}+{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    _write_weights(folder / WEIGHTS, state, dtype)
    _write_text(folder / MODEL, json.dumps(facts, indent=2, sort_keys=True) + "\n")
    card = replace(card, architecture=architecture, weights_sha256=digest_of(folder / WEIGHTS))
    _write_text(folder / CARD, card.to_json())
    return card


def load_folder(folder: Path, device: Literal["auto", "cpu", "cuda"] = "auto") -> Encoder:
    """The encoder that `save` wrote.

    Raises:
        EncoderError: unfinished, damaged, or not written by `save`.
    """
    card, network = build(folder, device)
    return Encoder(card, network)


def build(folder: Path, device: str) -> tuple[EncoderCard, Network]:
    """Card and network of an exported folder."""
    from encoder.features.joint import Joint
    from encoder.networks import convolutional, lite, vit
    from encoder.networks.forward import Pool

    card, model, beside = _load(folder)
    if isinstance(model, lite.Lite):
        return card, convolutional.network(card, model, device)
    pool: Pool = "mean" if card.pooling == "mean" else "cls"
    if beside is None:
        return card, vit.network(card, model, pool, device)
    return card, Joint(card, vit.network(_alone(card, beside), model, pool, device), beside)


def load_model(folder: Path) -> tuple[EncoderCard, nn.Module]:
    """Card and bare timm model (float32, CPU) of an exported folder, to train it further.

    Of a joint encoder it is the network alone.

    Raises:
        EncoderError: unfinished, damaged, or not written by `save`.
    """
    card, model, beside = _load(folder)
    return (card if beside is None else _alone(card, beside)), model


def _alone(card: EncoderCard, beside: Beside) -> EncoderCard:
    """The card of the network without what is measured beside it."""
    return replace(
        card, dim=card.dim - beside.dim, architecture=card.architecture.partition("+")[0]
    )


def _load(folder: Path) -> tuple[EncoderCard, nn.Module, Beside | None]:
    missing = [name for name in (CARD, MODEL, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise EncoderError(
            f"{folder} has no {' and no '.join(missing)}: it is no finished export; export again"
        )
    from encoder.features.joint import TABLES, from_tables
    from encoder.networks import checkpoint

    card = EncoderCard.read(folder / CARD)
    got = digest_of(folder / WEIGHTS)
    if got != card.weights_sha256:
        raise WrongDigest(
            f"{folder / WEIGHTS} has sha256 {got}, its card says {card.weights_sha256}: the files "
            "do not belong together or are damaged; export or copy the folder again"
        )
    try:
        facts = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        name, img_size, kwargs = facts["timm_name"], facts["img_size"], facts["kwargs"]
    except (ValueError, KeyError, TypeError) as error:
        raise EncoderError(f"{folder / MODEL} cannot be read: {error!r}; export again") from error
    state = checkpoint.read(folder / WEIGHTS)
    beside = None
    if MEASURED in facts:
        held = {key: state.pop(key).float().numpy() for key in TABLES if key in state}
        beside = from_tables(held, str(facts[MEASURED]), str(folder))
    model = _bare(name, img_size, kwargs)
    checkpoint.load_strict(model, state, str(folder / WEIGHTS))
    _check_card(card, model, img_size, beside)
    return card, model, beside


def _bare(name: str, img_size: int, kwargs: Mapping[str, Any]) -> nn.Module:
    """The network without weights, on the `meta` device."""
    import torch

    from encoder.networks import lite, vit

    if name != lite.NAME:
        return vit.bare_model(name, img_size, kwargs)
    if img_size % lite.STRIDE:
        raise EncoderError(f"{name} needs a multiple of {lite.STRIDE} px, got {img_size}")
    with torch.device("meta"):
        return lite.Lite(**kwargs)


def _depth(state_dict: Mapping[str, Tensor]) -> int:
    return len({name.split(".")[1] for name in state_dict if name.startswith("blocks.")})


def _check_card(card: EncoderCard, model: nn.Module, img_size: int, beside: Beside | None) -> None:
    """The card must promise what the model gives."""
    parts: Any = dict(model.named_children())
    width: Any = model.num_features
    out = parts["project"].out_features if "project" in parts else width
    patched: Any = getattr(model, "patch_embed", None)  # a feature map is read at any grid
    patch = card.patch_px if patched is None else patched.patch_size[0]
    facts = (
        ("dim", card.dim, out + (beside.dim if beside else 0)),
        ("input_px", card.input_px, img_size),
        ("patch_px", card.patch_px, patch),
    )
    for name, says, is_ in facts:
        if says != is_:
            raise EncoderError(f"card {card.id!r} says {name} {says}, but the model has {is_}")
    if card.pooling == "none":
        raise EncoderError(f"card {card.id!r} says pooling none; a transformer has cls or mean")


def _write_weights(path: Path, state: Mapping[str, Tensor], dtype: str) -> None:
    import torch
    from safetensors.torch import save_file

    if dtype not in ("fp32", "fp16"):
        raise EncoderError(f"dtype must be fp32 or fp16, got {dtype!r}")
    kind = torch.float16 if dtype == "fp16" else torch.float32
    stored = {n: t.to(kind) if t.is_floating_point() else t for n, t in state.items()}
    over = [n for n, t in stored.items() if t.is_floating_point() and not t.isfinite().all()]
    if over:
        raise EncoderError(f"tensors {over[:3]} are not finite as {dtype}; nothing was written")
    part = path.with_name(path.name + ".part")
    save_file(stored, part)
    _settle(part, path)


def _write_text(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    _settle(part, path)


def _settle(part: Path, path: Path) -> None:
    """On disk first, then under its name."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
