"""What runs a network: PyTorch or OpenVINO, in the fastest precision that keeps the vectors."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Pixels = NDArray[np.uint8]
"""A batch: n x input_px x input_px x 3, red first."""
Outputs = tuple[NDArray[np.floating], ...]
"""The pooled rows (n x dim) and, where asked for, the patch tokens (n x tokens x dim)."""

MIN_COSINE = 0.999
"""How close an engine's vectors must be to PyTorch's in float32, on every probe image."""
PROBES = 4
"""How many probe images an engine is checked on when an encoder is loaded."""
log = logging.getLogger(__name__)


class Engine(Protocol):
    """What runs a network somewhere. Not safe to call from several threads at once."""

    name: str
    """Engine and precision, for people: `openvino-bf16`."""
    batch_size: int
    """How many images at once suit it."""

    def __call__(self, pixels: Pixels, patches: bool) -> Outputs:
        """Run one batch."""
        ...


class Torch:
    """PyTorch as it is, in float32 or under bfloat16 autocast."""

    def __init__(self, forward: nn.Module, device: torch.device, bf16: bool = False) -> None:
        self.name = f"torch-{device.type}-{'bf16' if bf16 else 'fp32'}"
        self.batch_size = 256 if device.type == "cuda" else 8
        self._forward = forward.to(device)
        self._device = device
        self._bf16 = bf16

    def __call__(self, pixels: Pixels, patches: bool) -> Outputs:
        """Run one batch."""
        bf16 = torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16)
        with torch.inference_mode(), bf16:
            out = self._forward(torch.from_numpy(pixels).to(self._device))
        return tuple(part.float().cpu().numpy() for part in (out if patches else out[:1]))


class OpenVino:
    """OpenVINO on the CPU; as many threads as PyTorch was given (`OMP_NUM_THREADS`).

    Raises (at construction):
        Exception: whatever OpenVINO raises on a network that it cannot convert.
    """

    def __init__(self, model: object, precision: str) -> None:
        import openvino

        self.name = f"openvino-{precision}"
        self.batch_size = 16
        settings = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # pinned threads wait where a core is shared
        }
        compiled = openvino.Core().compile_model(model, "CPU", settings)
        self._request = compiled.create_infer_request()

    def __call__(self, pixels: Pixels, patches: bool) -> Outputs:
        """Run one batch."""
        results = self._request.infer([pixels], share_inputs=True)
        # Copied: the request's own memory is overwritten by its next batch.
        return tuple(np.array(results[at]) for at in range(len(results) if patches else 1))


def choose(forward: nn.Module, device: torch.device, side: int) -> Engine:
    """The fastest engine of the device whose vectors are those of float32 PyTorch.

    Measured in `benchmarks/encoder_cpu.py`: on a CPU with bfloat16 OpenVINO in bfloat16 comes
    first, on any other OpenVINO in float32. Each candidate is held against PyTorch on probe
    images with the very weights that it will run, and the next one is taken where the cosine
    is under `MIN_COSINE`, so which engine runs is no part of an encoder's fingerprint.
    """
    reference = Torch(forward, device)
    pixels = probes(side)
    expected = reference(pixels, False)[0]
    for name, make in _candidates(forward, device, pixels):
        try:
            engine = make()
            cosine = _worst_cosine(engine(pixels, False)[0], expected)
        except Exception as error:  # OpenVINO raises many kinds on what it cannot convert
            log.info("%s cannot run this encoder: %s", name, error)
            continue
        if cosine >= MIN_COSINE:
            return engine
        log.info("%s reaches cosine %.5f only and is not used", name, cosine)
    return reference


def _candidates(
    forward: nn.Module, device: torch.device, pixels: Pixels
) -> Iterator[tuple[str, Callable[[], Engine]]]:
    """Name and maker of the engines to try, the fastest first."""
    if device.type == "cuda":
        yield "torch-cuda-bf16", partial(Torch, forward, device, bf16=True)
        return
    try:
        import openvino

        model = _converted(forward, pixels)
        native = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except Exception as error:  # not installed, or a network that it cannot convert
        log.info("OpenVINO cannot run this encoder: %s", error)
        return
    if "BF16" in native:
        yield "openvino-bf16", partial(OpenVino, model, "bf16")
    yield "openvino-fp32", partial(OpenVino, model, "fp32")


def _converted(forward: nn.Module, pixels: Pixels) -> object:
    """The network as an OpenVINO model, for batches of any size."""
    import openvino

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns about shape checks that hold here
        return openvino.convert_model(forward, example_input=torch.from_numpy(pixels[:2]))


def _worst_cosine(got: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    a, b = got.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.min((a * b).sum(axis=1) / norms))  # NaN compares as too small


def probes(side: int, count: int = PROBES) -> Pixels:
    """Deterministic pictures of a stained cell on a bright field, each in other colours."""
    rng = np.random.default_rng(0)
    y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    pictures = []
    for _ in range(count):
        radius, angle = np.hypot(x, y), np.arctan2(y, x)
        cell = radius < 0.38 + 0.03 * np.sin(5 * angle + rng.uniform(0, 6))
        shift = rng.uniform(-0.1, 0.1, size=2)
        nucleus = np.hypot(x - shift[0], y - shift[1]) < rng.uniform(0.15, 0.3)
        picture = np.full((side, side, 3), rng.integers(215, 245, 3), np.float64)
        picture[cell] = rng.integers(140, 220, 3)
        picture[cell & nucleus] = rng.integers(50, 150, 3)
        grain = rng.normal(0, 12, (side, side, 1)) * cell[..., None]
        pictures.append((picture + grain + rng.normal(0, 3, picture.shape)).clip(0, 255))
    return np.stack(pictures).astype(np.uint8)
