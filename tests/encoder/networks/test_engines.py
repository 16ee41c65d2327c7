"""The engine that is chosen is fast only where it keeps the vectors."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from torch import nn

from encoder.card import EncoderCard
from encoder.contract import Encoder, EncoderError
from encoder.networks import engines, vit
from encoder.networks.engines import OpenVino, Torch

CPU = torch.device("cpu")
CARD = EncoderCard(id="tiny", architecture="tiny", dim=64, input_px=56, patch_px=14)


@pytest.fixture(name="forward", scope="module")
def _forward() -> nn.Module:
    torch.manual_seed(3)
    model = timm.create_model(
        "vit_small_patch14_dinov2", num_classes=0, img_size=56,
        embed_dim=64, depth=3, num_heads=2, init_values=0.5,
    )  # fmt: skip
    for tensor in model.parameters():
        if tensor.ndim > 1:
            nn.init.normal_(tensor, std=tensor[0].numel() ** -0.5)
    return vit.Forward(model, CARD, "cls").eval().requires_grad_(False)


@pytest.fixture(name="converted", scope="module")
def _converted(forward: nn.Module) -> object:
    return engines.converted(forward, engines.probes(56))


def test_openvino_in_float32_gives_pytorchs_numbers(
    forward: nn.Module, converted: object, rng: np.random.Generator
) -> None:
    openvino, reference = OpenVino(converted, "fp32"), Torch(forward, CPU)
    for n in (1, 5, 3):
        pixels = rng.integers(0, 256, (n, 56, 56, 3), dtype=np.uint8)
        for got, expected in zip(openvino(pixels, True), reference(pixels, True), strict=True):
            assert got.shape == expected.shape
            assert np.abs(got - expected).max() < 1e-5
        assert len(openvino(pixels, False)) == 1


def test_results_are_not_overwritten_by_the_next_batch(converted: object) -> None:
    engine = OpenVino(converted, "fp32")
    first = engine(engines.probes(56), False)[0]
    kept = first.copy()
    engine(255 - engines.probes(56), False)
    assert np.array_equal(first, kept)


def test_the_chosen_engine_keeps_the_cosine(forward: nn.Module, rng: np.random.Generator) -> None:
    chosen = engines.choose(forward, CPU, 56)
    pixels = rng.integers(0, 256, (8, 56, 56, 3), dtype=np.uint8)
    expected = Torch(forward, CPU)(pixels, False)[0]
    assert engines.worst_cosine(chosen(pixels, False)[0], expected) >= engines.MIN_COSINE


class Skewed:
    """An engine whose numbers are wrong by a chosen amount."""

    name = "skewed"
    batch_size = 1

    def __init__(self, forward: nn.Module, error: float) -> None:
        self.reference, self.error = Torch(forward, CPU), error

    def __call__(self, pixels: np.ndarray, patches: bool) -> tuple[np.ndarray, ...]:
        rows = self.reference(pixels, patches)[0].copy()
        rows[0, :32] *= 1 + self.error
        return (rows,)


def broken() -> Skewed:
    raise RuntimeError("no such instruction")


@pytest.mark.parametrize(
    ("error", "name"),
    [(0.02, "skewed"), (0.5, "torch-cpu-fp32"), (np.nan, "torch-cpu-fp32")],
)
def test_an_engine_whose_vectors_stray_on_one_probe_is_not_used(
    error: float, name: str, forward: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def candidates(*_: object) -> list[tuple[str, Callable[[], Skewed]]]:
        return [("broken", broken), ("skewed", lambda: Skewed(forward, error))]

    monkeypatch.setattr(engines, "_candidates", candidates)
    assert engines.choose(forward, CPU, 56).name == name


def test_without_openvino_pytorch_runs(forward: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    assert engines.choose(forward, CPU, 56).name == "torch-cpu-fp32"


def test_without_bfloat16_in_the_cpu_float32_runs(
    forward: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    assert engines.choose(forward, CPU, 56).name == "openvino-fp32"


def test_which_engine_runs_is_no_part_of_the_fingerprint(forward: nn.Module) -> None:
    encoder = Encoder(CARD, vit.Vit(CARD, Torch(forward, CPU)))
    assert encoder.engine == "torch-cpu-fp32"
    assert encoder.card.engine == "torch-fp32"


def test_a_transformer_answers_several_threads(forward: nn.Module, converted: object) -> None:
    encoder = Encoder(CARD, vit.Vit(CARD, OpenVino(converted, "fp32")), batch_size=2)
    images = [list(engines.probes(56, 3 + at)) for at in range(4)]
    expected = [encoder.embed(some) for some in images]
    got: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda at=at: got.update({at: encoder.embed(images[at])}))
        for at in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.abs(got[at] - expected[at]).max() < 1e-6 for at in range(4))


def test_probes_are_pictures_that_differ_and_are_the_same_every_time() -> None:
    pictures = engines.probes(56)
    assert np.array_equal(pictures, engines.probes(56))
    assert pictures.std(axis=(1, 2)).min() > 10
    assert len({picture.tobytes() for picture in pictures}) == engines.PROBES


def test_a_gpu_that_is_not_there_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert vit.pick_device("auto").type == "cpu"
    with pytest.raises(EncoderError, match="torch sees no GPU"):
        vit.pick_device("cuda")
    with pytest.raises(EncoderError, match="auto, cpu or cuda"):
        vit.pick_device("tpu")  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert vit.pick_device("auto").type == "cuda"
    assert vit.pick_device("cpu").type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_half_precision_on_the_gpu_keeps_the_cosine(forward: nn.Module) -> None:
    gpu = torch.device("cuda")
    chosen = engines.choose(forward, gpu, 56)
    assert chosen.name in {"torch-cuda-fp16", "torch-cuda-bf16"}
    pixels = engines.probes(56, 9)
    on_gpu = chosen(pixels, False)[0]
    expected = Torch(forward.to(CPU), CPU)(pixels, False)[0]
    assert engines.worst_cosine(on_gpu, expected) >= engines.MIN_COSINE
