"""The contract that every encoder keeps, and the wrapper that holds it to it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard

RGB = NDArray[np.uint8]
"""One image: height x width x 3, red first, 0 to 255."""
Vectors = NDArray[np.float32]
"""Embeddings: n x dim, rows of length 1."""
Patches = NDArray[np.float32]
"""Patch tokens: n x rows x columns x dim, not normalised."""


class EncoderError(RuntimeError):
    """An encoder that does not keep its contract, or cannot be loaded."""


class NoPatchTokens(EncoderError):
    """Patch tokens of an encoder that has none."""

    def __init__(self, id: str) -> None:
        super().__init__(
            f"encoder {id!r} has no patch tokens; region queries and overlays need a ViT encoder"
        )


class MissingTorch(EncoderError):
    """Something that runs on PyTorch, in an installation without it."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} needs PyTorch, which is not installed here: make install EXTRA=torch "
            "(or uv sync --inexact --extra torch, or pip install 'hemaseek[torch]')"
        )


def need_torch(what: str) -> None:
    """Refuse in one sentence where PyTorch is missing.

    Raises:
        MissingTorch: says what needs it and how to install it.
    """
    if not has_torch():
        raise MissingTorch(what)


def has_torch() -> bool:
    """Whether PyTorch is installed; it is not imported."""
    return find_spec("torch") is not None


class Network(Protocol):
    """What a recipe builds: the bare computation, not yet trusted."""

    def vectors(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        """One row per image, n x dim, of any length."""
        ...

    def tokens(self, images: Sequence[RGB]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """The pooled rows (n x dim) and the patch tokens (n x rows x columns x dim)."""
        ...


class Encoder:
    """A network held to its card.

    Whatever the network returns, the caller gets finite float32 rows of length 1 and of the
    shape that the card promises, or an error that names the encoder, what was expected and
    what came. Safe to call from several threads if the network is.
    """

    def __init__(self, card: EncoderCard, network: Network, batch_size: int | None = None) -> None:
        self.card = card
        self.batch_size = batch_size or int(getattr(network, "batch_size", 32))
        self._network = network

    @property
    def engine(self) -> str:
        """What runs it on this machine, such as `openvino-bf16`; no part of the fingerprint."""
        return str(getattr(self._network, "engine", "numpy"))

    def embed(self, images: Sequence[RGB]) -> Vectors:
        """Embed images.

        Args:
            images: Each height x width x 3, uint8, RGB; any size. All at once: pass a few
                thousand at most and loop outside.

        Returns:
            n x dim float32, rows of length 1.

        Raises:
            EncoderError: an image of another shape, or a network that broke its card.
        """
        check_images(images)
        if not images:
            return np.empty((0, self.card.dim), np.float32)
        parts = [
            self._unit(self._network.vectors(batch), len(batch))
            for batch in batches(images, self.batch_size)
        ]
        return np.concatenate(parts)

    def tokens(self, images: Sequence[RGB]) -> tuple[Vectors, Patches]:
        """Embed images and keep their patch tokens.

        Returns:
            The vectors of `embed`, and the patch tokens n x rows x columns x dim in reading
            order, rows and columns being `input_px / patch_px`.

        Raises:
            NoPatchTokens: the encoder has none.
        """
        if self.card.patch_px is None:
            raise NoPatchTokens(self.card.id)
        check_images(images)
        side = self.card.input_px // self.card.patch_px
        if not images:
            return (
                np.empty((0, self.card.dim), np.float32),
                np.empty((0, side, side, self.card.dim), np.float32),
            )
        pooled, patches = [], []
        for batch in batches(images, self.batch_size):
            cls, grid = self._network.tokens(batch)
            pooled.append(self._unit(cls, len(batch)))
            patches.append(self._held(grid, (len(batch), side, side, self.card.dim)))
        return np.concatenate(pooled), np.concatenate(patches)

    def attention(self, images: Sequence[RGB]) -> Patches:
        """How the last block looks at the patches.

        Returns:
            n x rows x columns, each image summing to at most 1.

        Raises:
            NoPatchTokens: the network has no such attention.
        """
        looks = getattr(self._network, "attention", None)
        if looks is None or self.card.patch_px is None:
            raise NoPatchTokens(self.card.id)
        check_images(images)
        side = self.card.input_px // self.card.patch_px
        return self._held(looks(images), (len(images), side, side))

    def _held(self, rows: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.float32]:
        rows = np.asarray(rows)
        if rows.shape != shape:
            raise EncoderError(
                f"encoder {self.card.id!r} returned shape {rows.shape}; its card says {shape}"
            )
        if rows.dtype.kind != "f":
            raise EncoderError(
                f"encoder {self.card.id!r} returned {rows.dtype}; floating point was expected"
            )
        if not np.isfinite(rows).all():
            bad = int((~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)).sum())
            raise EncoderError(
                f"encoder {self.card.id!r} returned NaN or infinity for {bad} of {len(rows)} "
                "images; check its weights and its precision"
            )
        return rows.astype(np.float32, copy=False)

    def _unit(self, rows: NDArray[np.floating], n: int) -> Vectors:
        held = self._held(rows, (n, self.card.dim))
        norms = np.linalg.norm(held.astype(np.float64), axis=1, keepdims=True)
        if (norms < 1e-12).any():
            raise EncoderError(
                f"encoder {self.card.id!r} returned a zero vector for "
                f"{int((norms < 1e-12).sum())} of {n} images"
            )
        return np.asarray(held / norms, np.float32)


def check_images(images: Sequence[RGB]) -> None:
    """Refuse anything that is not height x width x 3 uint8.

    Raises:
        EncoderError: names the position and what came instead.
    """
    for at, image in enumerate(images):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            came = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
            raise EncoderError(f"image {at}: expected a uint8 array, got {came}")
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise EncoderError(f"image {at}: expected height x width x 3, got {image.shape}")


def batches(images: Sequence[RGB], size: int) -> list[Sequence[RGB]]:
    """Consecutive runs of up to `size` images."""
    return [images[at : at + size] for at in range(0, len(images), size)]
