"""Our own encoders as folders: weights, what rebuilds the model, and the card, written last.

An encoder that ships also has its network as a graph, which runs without PyTorch:

    python -m encoder.networks.export FOLDER...

writes the graphs of existing exports anew.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from encoder.card import EncoderCard
from encoder.contract import Encoder, EncoderError, Network, has_torch, need_torch
from encoder.download import WrongDigest, digest_of
from encoder.durable import replacing, sync
from encoder.networks import graph

if TYPE_CHECKING:
    from torch import Tensor, nn

    from encoder.features.joint import Beside
    from encoder.networks.forward import Pool

WEIGHTS, MODEL, CARD = "weights.safetensors", "model.json", "card.json"
NETWORK = "network"
"""Of the weights' metadata: the model file again, so that their digest covers its settings too."""
MEASURED = "measured"
"""In `model.json`: the version of the numbers that stand beside the network."""
log = logging.getLogger(__name__)


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
    as_graph: bool = False,
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
        as_graph: Write the network as a graph too, so that it runs without PyTorch.

    Returns:
        The card as written.

    Raises:
        EncoderError: tensors, model and card do not belong together, or the graph does not give
            what the network gives.
    """
    import torch

    from encoder.features.descriptors import VERSION
    from encoder.features.joint import tables
    from encoder.networks import checkpoint, lite

    kwargs = dict(model_kwargs or {})
    if timm_name != lite.NAME:
        depth = len({key.split(".")[1] for key in state_dict if key.startswith("blocks.")})
        kwargs.setdefault("depth", depth)
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
    _write_weights(folder / WEIGHTS, state, dtype, facts)
    _write_text(folder / MODEL, json.dumps(facts, indent=2, sort_keys=True) + "\n")
    card = replace(card, architecture=architecture, weights_sha256=digest_of(folder / WEIGHTS))
    for name in graph.FILES:  # of the weights before
        (folder / name).unlink(missing_ok=True)
    _write_text(folder / CARD, card.to_json())
    if as_graph:
        try:
            add_graph(folder)
        except BaseException:
            (folder / CARD).unlink()
            raise
    return card


def add_graph(folder: Path) -> EncoderCard:
    """Write the graph of an export anew; returns the card of its network.

    Raises:
        EncoderError: no finished export, or the graph does not give what the network gives. The
            export is then left without a graph.
    """
    need_torch("writing a graph")
    card, model = load_model(folder)
    _write_graph(folder, card, model)
    return card


def _write_graph(folder: Path, card: EncoderCard, model: nn.Module) -> None:
    """The graph of a network, which is that of the weights as they lie on disk."""
    from safetensors import safe_open

    from encoder.networks import convolutional, lite
    from encoder.networks.forward import Forward

    if isinstance(model, lite.Lite):
        module: nn.Module = convolutional.Whole(convolutional.Looks(model, card))
    else:
        module = Forward(model, card, _pool(card))
    with safe_open(folder / WEIGHTS, "pt") as file:
        half = any(file.get_slice(name).get_dtype() == "F16" for name in file.keys())  # noqa: SIM118
    graph.write(folder, card, module.eval().requires_grad_(False), half)


def _pool(card: EncoderCard) -> Pool:
    return "mean" if card.pooling == "mean" else "cls"


def load_folder(folder: Path, device: Literal["auto", "cpu", "cuda"] = "auto") -> Encoder:
    """The encoder that `save` wrote.

    Raises:
        EncoderError: unfinished, damaged, or not written by `save`.
    """
    card, network = build(folder, device)
    return Encoder(card, network)


def build(folder: Path, device: str) -> tuple[EncoderCard, Network]:
    """Card and network of an exported folder: its graph, or PyTorch on a GPU or without a graph.

    Raises:
        EncoderError: unfinished, damaged, or no graph and no PyTorch.
    """
    card, facts = _facts(folder)
    beside = _beside(folder, facts)
    network = _network(folder, _alone(card, beside), str(facts["timm_name"]), device)
    if beside is None:
        return card, network
    from encoder.features.joint import Joint

    return card, Joint(card, network, beside)


def _network(folder: Path, card: EncoderCard, timm_name: str, device: str) -> Network:
    """The network alone, on what suits the device."""
    if device == "cpu" or (device == "auto" and not _gpu_in_sight()):
        in_torch = partial(_in_torch, folder, "cpu")
        attends = timm_name.startswith("vit_") and has_torch()
        try:
            return graph.Graph(card, folder, in_torch if attends else None)
        except graph.NoGraph as error:
            if not has_torch():
                raise
            log.info("%s", error)
    need_torch(f"encoder {card.id!r} on device {device}")
    return _in_torch(folder, device)


def _gpu_in_sight() -> bool:
    """Whether PyTorch may find a GPU; it is not imported for that, which takes seconds."""
    return has_torch() and Path("/dev/nvidiactl").exists()


def _in_torch(folder: Path, device: str) -> Network:
    from encoder.networks import convolutional, lite, vit

    card, model = load_model(folder)
    if isinstance(model, lite.Lite):
        return convolutional.network(card, model, device)
    return vit.network(card, model, _pool(card), device)


def load_model(folder: Path) -> tuple[EncoderCard, nn.Module]:
    """Card and bare timm model (float32, CPU) of an exported folder, to train it further.

    Of a joint encoder it is the network alone.

    Raises:
        EncoderError: unfinished, damaged, or not written by `save`.
    """
    from encoder.networks import checkpoint

    card, facts = _facts(folder)
    beside = _beside(folder, facts)
    state = {
        name: tensor
        for name, tensor in checkpoint.read(folder / WEIGHTS).items()
        if not name.startswith(f"{MEASURED}.")
    }
    model = _bare(facts["timm_name"], facts["img_size"], facts["kwargs"])
    checkpoint.load_strict(model, state, str(folder / WEIGHTS))
    _check_card(card, model, facts["img_size"], beside)
    return _alone(card, beside), model


def _alone(card: EncoderCard, beside: Beside | None) -> EncoderCard:
    """The card of the network without what is measured beside it."""
    if beside is None:
        return card
    return replace(
        card, dim=card.dim - beside.dim, architecture=card.architecture.partition("+")[0]
    )


def _facts(folder: Path) -> tuple[EncoderCard, dict[str, Any]]:
    """Card and model file of a finished export whose weights are those of its card."""
    missing = [name for name in (CARD, MODEL, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise EncoderError(
            f"{folder} has no {' and no '.join(missing)}: it is no finished export; export again"
        )
    card = EncoderCard.read(folder / CARD)
    got = digest_of(folder / WEIGHTS)
    if got != card.weights_sha256:
        raise WrongDigest(
            f"{folder / WEIGHTS} has sha256 {got}, its card says {card.weights_sha256}: the files "
            "do not belong together or are damaged; export or copy the folder again"
        )
    try:
        facts: dict[str, Any] = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        _ = facts["timm_name"], facts["img_size"], facts["kwargs"]
    except (ValueError, KeyError, TypeError) as error:
        raise EncoderError(f"{folder / MODEL} cannot be read: {error!r}; export again") from error
    _check_network(folder, facts)
    return card, facts


def _check_network(folder: Path, facts: Mapping[str, Any]) -> None:
    """The model file must be the one that the weights were saved with, if they say which."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, "numpy") as file:
            saved = (file.metadata() or {}).get(NETWORK)
    except SafetensorError as error:
        raise EncoderError(f"{folder / WEIGHTS} cannot be read as weights: {error}") from error
    if saved is not None and json.loads(saved) != facts:
        raise WrongDigest(
            f"{folder / MODEL} was changed: the weights were saved for the network {saved}; "
            "export or copy the folder again"
        )


def _beside(folder: Path, facts: Mapping[str, Any]) -> Beside | None:
    """What is measured beside the network, if anything is."""
    if MEASURED not in facts:
        return None
    from safetensors import SafetensorError, safe_open

    from encoder.features.joint import TABLES, from_tables

    try:
        with safe_open(folder / WEIGHTS, "numpy") as file:
            there = set(file.keys())
            held = {key: file.get_tensor(key) for key in TABLES if key in there}
    except SafetensorError as error:
        raise EncoderError(f"{folder / WEIGHTS} cannot be read as weights: {error}") from error
    return from_tables(held, str(facts[MEASURED]), str(folder))


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


def _write_weights(
    path: Path, state: Mapping[str, Tensor], dtype: str, facts: Mapping[str, Any]
) -> None:
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
    save_file(stored, part, {NETWORK: json.dumps(facts, sort_keys=True)})
    sync(part)
    part.replace(path)


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def main(folders: Sequence[str] | None = None) -> int:
    """Write the graphs of exports anew; returns the exit status."""
    given = sys.argv[1:] if folders is None else folders
    if not given or any(name.startswith("-") for name in given):
        sys.stderr.write("usage: python -m encoder.networks.export FOLDER...\n")
        return 2
    for name in given:
        card = add_graph(Path(name))
        sys.stdout.write(f"{name}: the graph gives the vectors of {card.title}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
