"""A timm model as a network: pixels in, pooled vectors and patch tokens out."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from encoder.card import EncoderCard
from encoder.contract import RGB, EncoderError, NoPatchTokens
from encoder.networks.engines import Engine, Outputs, choose, stack
from encoder.networks.forward import Forward, Pool


class Vit:
    """A transformer (or any timm model) on one engine, safe to call from several threads."""

    def __init__(self, card: EncoderCard, engine: Engine, forward: Forward | None = None) -> None:
        self.card = card
        self._forward = forward
        self.batch_size = engine.batch_size
        self.engine = engine.name
        self._run_batch = engine
        self._turn = threading.Lock()

    def vectors(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        """The pooled rows, n x dim."""
        return self._run(images, patches=False)[0]

    def tokens(self, images: Sequence[RGB]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """The pooled rows and the patch tokens, n x rows x columns x dim."""
        if self.card.patch_px is None:
            raise NoPatchTokens(self.card.id)
        pooled, patches = self._run(images, patches=True)
        side = self.card.input_px // self.card.patch_px
        return pooled, patches.reshape(len(images), side, side, -1)

    def attention(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        """How the last block's class token looks at the patches: n x rows x columns.

        Mean over the heads, in PyTorch, one batch; where the vector is the mean of the patches,
        the mean over what all of them look at.

        Raises:
            NoPatchTokens: no transformer, or one whose attention is made otherwise.
        """
        if self._forward is None or self.card.patch_px is None:
            raise NoPatchTokens(self.card.id)
        from encoder.networks.attention import last_attention

        pixels = torch.from_numpy(stack(images, self.card))
        side = self.card.input_px // self.card.patch_px
        with self._turn:
            rows = last_attention(self._forward, pixels)
        if rows is None:
            raise NoPatchTokens(self.card.id)
        return rows.reshape(len(images), side, side)

    def _run(self, images: Sequence[RGB], patches: bool) -> Outputs:
        pixels = stack(images, self.card)
        with self._turn:  # one batch at a time: the engine already uses every core
            return self._run_batch(pixels, patches)


def bare_model(timm_name: str, img_size: int, kwargs: Mapping[str, Any]) -> nn.Module:
    """The transformer without weights, on the `meta` device: every tensor is still to come.

    Raises:
        EncoderError: timm knows no such model, or refuses the arguments.
    """
    try:
        with torch.device("meta"):
            return timm_model(timm_name, img_size, kwargs)
    except Exception as error:  # timm raises many kinds on names and arguments
        raise EncoderError(
            f"timm cannot build {timm_name!r} at {img_size} px with {dict(kwargs)}: {error}"
        ) from error


def timm_model(timm_name: str, img_size: int, kwargs: Mapping[str, Any]) -> nn.Module:
    """A timm vision transformer with fresh weights.

    Args:
        timm_name: Such as `vit_small_patch14_dinov2`.
        img_size: Side of the input, in pixels.
        kwargs: What differs from timm's model. Two are ours: `stem: "conv"` puts small
            convolutions in place of the patch projection, and `project: n` adds a linear layer
            `project` after the pooling, to vectors of n numbers.
    """
    import timm

    given = dict(kwargs)
    if given.pop("stem", "patch") == "conv":
        from encoder.networks.stem import ConvStem

        given["embed_layer"] = ConvStem
    width = given.pop("project", None)
    model: nn.Module = timm.create_model(
        timm_name, pretrained=False, num_classes=0, img_size=img_size, **given
    )
    if width is not None:
        model.project = nn.Linear(int(model.num_features), int(width))  # type: ignore[arg-type]
    return model


def pick_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """`auto` takes the GPU if there is one.

    Raises:
        EncoderError: `cuda` where there is no GPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise EncoderError(f"device must be auto, cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise EncoderError("device cuda was asked for, but torch sees no GPU; use auto or cpu")
    gpu = device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def network(card: EncoderCard, model: nn.Module, pool: Pool, device: str) -> Vit:
    """The loaded model on the best engine of the device."""
    where = pick_device(device)  # type: ignore[arg-type]
    forward = Forward(model, card, pool).eval().requires_grad_(False)
    return Vit(card, choose(forward, where, card.input_px), forward)
