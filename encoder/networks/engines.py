"""What runs a network: PyTorch or OpenVINO, in the fastest precision that keeps the vectors.

One rule says when two engines are the same encoder and share its fingerprint: on every probe image
the cosine of their vectors to those of PyTorch in float32 is at least `MIN_COSINE`. PyTorch is
imported only where it runs.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from encoder.contract import RGB
from encoder.image import resize

if TYPE_CHECKING:
    import torch
    from torch import nn

Pixels = NDArray[np.uint8]
"""A batch: n x input_px x input_px x 3, red first."""
Outputs = tuple[NDArray[np.floating], ...]
"""The pooled rows (n x dim) and, where asked for, the patch tokens (n x tokens x dim)."""

MIN_COSINE = 0.9999
"""How close an engine's vectors must be to PyTorch's in float32, on every probe image."""
PROBES = 4
"""How many probe images an engine is checked on when an encoder is loaded."""
log = logging.getLogger(__name__)
_importing = threading.Lock()


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
    """PyTorch as it is, in float32 or under autocast to `fp16` or `bf16`."""

    def __init__(self, forward: nn.Module, device: torch.device, precision: str = "fp32") -> None:
        self.name = f"torch-{device.type}-{precision}"
        self.batch_size = 256 if device.type == "cuda" else 8
        self._forward = forward.to(device)
        self._device = device
        self._precision = precision

    def __call__(self, pixels: Pixels, patches: bool) -> Outputs:
        """Run one batch."""
        import torch

        kind = torch.float16 if self._precision == "fp16" else torch.bfloat16
        cast = torch.autocast(self._device.type, kind, enabled=self._precision != "fp32")
        with torch.inference_mode(), cast:
            out = self._forward(torch.from_numpy(pixels).to(self._device))
        return tuple(part.float().cpu().numpy() for part in (out if patches else out[:1]))


class OpenVino:
    """OpenVINO on the CPU, on `threads()` threads.

    Args:
        model: An OpenVINO model, or what `compiled` gave on this machine as bytes.
        precision: `fp32` or `bf16`.
        at_once: Batches that are computed at the same time, on equal shares of the threads: threads
            that share a batch of a small network wait for each other.

    Raises (at construction):
        Exception: whatever OpenVINO raises on a network that it cannot convert.
    """

    def __init__(self, model: object, precision: str, at_once: int = 1) -> None:
        self.name = f"openvino-{precision}"
        self.precision = precision
        self.batch_size = 16
        settings = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            "INFERENCE_NUM_THREADS": threads(),
            "NUM_STREAMS": at_once,
            "ENABLE_CPU_PINNING": False,  # pinned threads wait where a core is shared
        }
        core = runtime().Core()
        kept = isinstance(model, bytes)
        self._compiled = (core.import_model if kept else core.compile_model)(model, "CPU", settings)
        self._requests = [self._compiled.create_infer_request() for _ in range(at_once)]

    @property
    def compiled(self) -> bytes:
        """The network as it was compiled, for this version of OpenVINO and this processor."""
        return bytes(self._compiled.export_model().getvalue())

    def __call__(self, pixels: Pixels, patches: bool) -> Outputs:
        """Run one batch."""
        results = self._requests[0].infer([pixels], share_inputs=True)
        # Copied: the request's own memory is overwritten by its next batch.
        return tuple(np.array(results[at]) for at in range(len(results) if patches else 1))

    def rows(self, batches: Iterable[Pixels]) -> list[NDArray[np.floating]]:
        """The pooled rows of each batch; batches are taken while others are computed."""
        found: list[NDArray[np.floating]] = []
        free, under_way = list(self._requests), deque[Any]()

        def collect() -> None:
            request = under_way.popleft()
            request.wait()
            found.append(np.array(request.get_output_tensor(0).data))
            free.append(request)

        try:
            for pixels in batches:
                if not free:
                    collect()
                free[-1].start_async([pixels])
                under_way.append(free.pop())
            while under_way:
                collect()
        finally:  # what was begun must not end in the next call
            for request in under_way:
                with suppress(Exception):  # the first error says what is wrong
                    request.wait()
        return found


Made = TypeVar("Made", bound=Engine)


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
    return first_equal(_candidates(forward, device, pixels), pixels, expected) or reference


def first_equal(
    candidates: Iterable[tuple[str, Callable[[], Made]]],
    pixels: Pixels,
    expected: NDArray[np.floating],
) -> Made | None:
    """The first engine whose vectors of the probes are those expected; `None` if there is none."""
    for name, make in candidates:
        try:
            engine = make()
            cosine = worst_cosine(engine(pixels, False)[0], expected)
        except Exception as error:  # OpenVINO raises many kinds on what it cannot convert
            log.info("%s cannot run this encoder: %s", name, error)
            continue
        if cosine >= MIN_COSINE:
            return engine
        log.info("%s reaches cosine %.5f only and is not used", name, cosine)
    return None


def _candidates(
    forward: nn.Module, device: torch.device, pixels: Pixels
) -> Iterator[tuple[str, Callable[[], Engine]]]:
    """Name and maker of the engines to try, the fastest first."""
    if device.type == "cuda":
        for precision in ("fp16", "bf16"):  # as fast as each other, fp16 eight times as exact
            yield f"torch-cuda-{precision}", partial(Torch, forward, device, precision)
        return
    try:
        model = converted(forward, pixels)
        faster = precisions()
    except Exception as error:  # not installed, or a network that it cannot convert
        log.info("OpenVINO cannot run this encoder: %s", error)
        return
    for precision in faster:
        yield f"openvino-{precision}", partial(OpenVino, model, precision)


def precisions() -> tuple[str, ...]:
    """In what OpenVINO may compute on this processor, the fastest first."""
    native = runtime().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("bf16", "fp32") if "BF16" in native else ("fp32",)


def runtime() -> Any:
    """OpenVINO without its converters: they take 0.3 s to import and report each import to their
    maker over the network, which their package for that is kept from.
    """
    with _importing:
        if "openvino" not in sys.modules:
            sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
            sys.modules["openvino.tools.ovc"] = None  # type: ignore[assignment]
            try:
                import openvino
            finally:
                del sys.modules["openvino.tools.ovc"]
        else:
            import openvino
    return openvino


def threads() -> int:
    """As many as PyTorch was given where it runs too, else `OMP_NUM_THREADS`, else every core."""
    if (torch := sys.modules.get("torch")) is not None:
        return int(torch.get_num_threads())
    named = os.environ.get("OMP_NUM_THREADS", "")
    return int(named) if named.isdigit() and int(named) else len(os.sched_getaffinity(0))


def converted(forward: nn.Module, pixels: Pixels) -> Any:
    """The network as an OpenVINO model, for batches of any size."""
    import torch

    runtime()
    from openvino.tools.ovc import convert_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns about shape checks that hold here
        return convert_model(forward, example_input=torch.from_numpy(pixels[:2]))


def stack(images: Sequence[RGB], card: EncoderCard) -> Pixels:
    """Images of any size as one batch; those of the right size are only copied."""
    side = card.input_px
    pixels = np.empty((len(images), side, side, 3), np.uint8)
    for at, image in enumerate(images):
        pixels[at] = resize(image, side, card.resample)
    return pixels


def worst_cosine(got: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """The lowest cosine between rows of the same place; NaN where a row is broken."""
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
