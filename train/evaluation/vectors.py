"""Vectors of frozen encoders, computed once and then read from disk."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from encoder.contract import Encoder, EncoderError
from encoder.durable import replacing
from encoder.registry import Device, load
from train.data.datasets import Labelled

if TYPE_CHECKING:
    from torch import nn

CHUNK = 512
"""Crops embedded, and then saved, at once."""
RANDOM = "random-vit-"
"""Prefix of untrained transformers: `random-vit-s`, `-b`, `-l`."""


def random_vit(id: str, seed: int) -> tuple[EncoderCard, nn.Module]:
    """A DINOv2-shaped transformer with random weights: the floor of training.

    Args:
        id: `random-vit-s`, `-b` or `-l`.
        seed: Of the weights; part of the fingerprint through their digest.
    """
    import timm
    import torch

    sizes = {"s": "small", "b": "base", "l": "large"}
    size = sizes.get(id.removeprefix(RANDOM))
    if size is None:
        raise EncoderError(f"unknown encoder {id!r}; random ones are {RANDOM}s, -b and -l")
    architecture = f"vit_{size}_patch14_dinov2"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # timm starts LayerScale at 1e-5, for training: all pictures would give one vector, to
        # seven digits. 1 is what the published models are built with.
        model = timm.create_model(
            architecture, pretrained=False, num_classes=0, img_size=224, init_values=1.0
        )
    digest = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    card = EncoderCard(
        id=f"{id}-seed{seed}",
        architecture=architecture,
        dim=model.num_features,
        patch_px=14,
        weights_sha256=digest.hexdigest(),
        source="random weights",
        notes="Untrained, LayerScale 1: what the architecture alone sees.",
    )
    return card, model


def open_encoder(id: str, seed: int, device: Device = "auto") -> Encoder:
    """Any encoder that the registry loads, or a random one."""
    if not id.startswith(RANDOM):
        return load(id, device=device)
    from encoder.networks import vit

    card, model = random_vit(id, seed)
    return Encoder(card, vit.network(card, model, "cls", device))


def vectors_of(
    encoder: Encoder,
    labelled: Labelled,
    cache: Path,
    *,
    raw: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:
    """The vectors of a set, embedded once and then read from disk.

    The cache is keyed by the encoder's fingerprint and the bytes of each picture, so subsets
    and sets that share pictures share vectors. Parts are written whole or not at all.

    Args:
        encoder: Whose vectors.
        labelled: Of which crops.
        cache: Folder; made if missing.
        raw: As the network gives them, not of length 1.
        progress: Called with crops done and crops to do.
    """
    home = cache.expanduser() / (encoder.card.fingerprint + ("-raw" if raw else ""))
    home.mkdir(parents=True, exist_ok=True)
    keys = labelled.keys()
    have: dict[str, NDArray[np.float32]] = {}
    for part in sorted(home.glob("*.npz")):
        with np.load(part) as held:
            have.update(zip(held["keys"].tolist(), held["vectors"], strict=True))
    first = {key: row for row, key in reversed(list(enumerate(keys.tolist())))}
    missing = sorted(row for key, row in first.items() if key not in have)
    for at in range(0, len(missing), CHUNK):
        rows = missing[at : at + CHUNK]
        crops = list(labelled.images(rows))
        made = _raw(encoder, crops) if raw else encoder.embed(crops)
        _save(home, keys[rows], made)
        have.update(zip(keys[rows].tolist(), made, strict=True))
        progress(min(at + CHUNK, len(missing)), len(missing))
    return np.stack([have[key] for key in keys.tolist()])


def _raw(encoder: Encoder, crops: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """The network's rows before they are brought to length 1."""
    network, size = encoder._network, encoder.batch_size
    parts = [network.vectors(crops[at : at + size]) for at in range(0, len(crops), size)]
    return np.concatenate(parts).astype(np.float32)


def _save(home: Path, keys: NDArray[np.str_], vectors: NDArray[np.float32]) -> None:
    name = sha256("".join(keys).encode()).hexdigest()[:16]
    with replacing(home / f"{name}.npz") as file:
        np.savez(file, keys=keys, vectors=vectors)
