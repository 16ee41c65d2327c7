"""A shipped encoder runs as a graph without PyTorch, and is the encoder that PyTorch runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder import registry
from encoder.card import EncoderCard
from encoder.contract import RGB, EncoderError
from encoder.download import WrongDigest
from encoder.networks import convolutional, export, graph, kept, vit
from encoder.networks.engines import MIN_COSINE, Pixels, Torch, probes, worst_cosine
from encoder.networks.lite import NAME, Lite

WITHOUT_TORCH = """
import sys
for name in ("torch", "timm", "torchvision"):
    sys.modules[name] = None
from encoder import registry
from encoder.contract import EncoderError
from encoder.networks.engines import probes
import numpy as np
images = list(probes(100, 3))
for name in ("colour", "measured", *registry.shipped()):
    encoder = registry.load(name)
    assert encoder.embed(images).shape == (3, encoder.card.dim)
    if encoder.card.patch_px:
        rows, patches = encoder.tokens(images)
        side = encoder.card.input_px // encoder.card.patch_px
        assert patches.shape == (3, side, side, encoder.card.dim)
        assert patches.std(axis=(1, 2)).max() > 0
        assert np.array_equal(rows, encoder.embed(images))
    print(name, encoder.engine)
for name, device in (("dinov2-s", "cpu"), ("timm:local-dir:.", "cpu"), ("hemaseek-s", "cuda")):
    try:
        registry.load(name, device=device)
    except EncoderError as error:
        print(error)
assert not {m for m in sys.modules if m.split(".")[0] in ("torch", "timm", "torchvision")
            and sys.modules[m] is not None}
"""


def save(folder: Path, seed: int, as_graph: bool) -> None:
    torch.manual_seed(seed)
    card = EncoderCard(
        id="ours", architecture="", dim=8, input_px=64, patch_px=16, pooling="mean",
        mean=(0.5, 0.4, 0.6), std=(0.3, 0.2, 0.25), resample="bilinear",
    )  # fmt: skip
    export.save(
        folder, card, Lite(8).state_dict(), timm_name=NAME, img_size=64, dtype="fp16",
        model_kwargs={"dim": 8, "looks": [1.0, 0.75]}, as_graph=as_graph,
    )  # fmt: skip


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a small network with its graph."""
    folder = tmp_path_factory.mktemp("export") / "e"
    save(folder, 0, as_graph=True)
    return folder


@pytest.fixture(name="copy")
def _copy(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEMASEEK_COMPILED", str(tmp_path / "compiled"))
    return shutil.copytree(folder, tmp_path / "e")


def test_images_computed_side_by_side_get_their_own_vectors(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "threads", lambda: 3)
    encoder = registry.load(str(copy))
    images = list(probes(70, 50))
    one_by_one = np.concatenate([encoder.embed([image]) for image in images])

    whole = graph.stack

    def out_of_memory(part: Sequence[RGB], card: EncoderCard) -> Pixels:
        if part[0] is images[32]:
            raise MemoryError
        return whole(part, card)

    monkeypatch.setattr(graph, "stack", out_of_memory)
    with pytest.raises(MemoryError):
        encoder.embed(images)

    def of_no_size(part: Sequence[RGB], card: EncoderCard) -> Pixels:
        return whole(part, card)[:, 1:]

    monkeypatch.setattr(graph, "stack", of_no_size)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="shape"):
            encoder.embed(images[:4])
    monkeypatch.setattr(graph, "stack", whole)

    assert worst_cosine(encoder.embed(images), one_by_one) > 0.999999
    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(encoder.embed, [images] * 4):
            assert worst_cosine(rows, one_by_one) > 0.999999


def test_what_ships_needs_no_torch_and_what_needs_it_says_how_to_install_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["colour numpy", "measured numpy"]
    assert all("openvino" in line for line in lines[2:-3])
    for line, what in zip(lines[-3:], ("'dinov2-s'", "timm:local-dir", "device cuda"), strict=True):
        assert what in line
        assert "needs PyTorch, which is not installed here: make install EXTRA=torch" in line


@pytest.mark.parametrize("name", registry.shipped())
def test_the_graph_that_ships_is_that_of_the_weights_beside_it(
    name: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (vit, convolutional):
        monkeypatch.setattr(module, "choose", lambda f, device, side: Torch(f, device))
    folder = registry.shipped()[name]
    _, ours = export.build(folder, "cpu")
    monkeypatch.setattr(graph, "has_one", lambda folder: False)
    _, theirs = export.build(folder, "cpu")
    images = [*probes(200, 2), *rng.integers(0, 256, (2, 90, 90, 3), dtype=np.uint8)]

    for got, expected in zip(ours.tokens(images), theirs.tokens(images), strict=True):
        assert got.shape == expected.shape
        assert worst_cosine(got.reshape(4, -1), expected.reshape(4, -1)) >= MIN_COSINE


def test_a_graph_that_strays_is_not_written_nor_its_export_finished(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "worst_cosine", lambda got, expected: 0.9998)
    with pytest.raises(EncoderError, match=r"at cosine 0\.9998"):
        save(copy, 0, as_graph=True)
    assert sorted(p.name for p in copy.iterdir()) == ["model.json", "weights.safetensors"]


def test_a_graph_of_other_weights_is_left_alone_and_without_torch_refused(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = (copy / "graph.json").read_text()
    save(copy, 1, as_graph=False)
    (copy / "graph.json").write_text(facts)

    monkeypatch.setattr(convolutional, "choose", lambda f, device, side: Torch(f, device))
    assert registry.load(str(copy)).engine == "torch-cpu-fp32"
    monkeypatch.setattr(export, "has_torch", lambda: False)
    with pytest.raises(EncoderError, match=r"python -m encoder\.networks\.export"):
        registry.load(str(copy))


def test_a_damaged_graph_is_refused(copy: Path) -> None:
    with (copy / "graph.bin").open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    with pytest.raises(WrongDigest, match=r"graph\.bin is missing or is not the file"):
        registry.load(str(copy))


def test_a_compiled_network_is_kept_checked_and_made_again_where_it_is_damaged(
    copy: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = list(probes(80, 2))
    expected = registry.load(str(copy)).embed(images)
    (made,) = kept.folder().iterdir()
    whole = made.read_bytes()

    with monkeypatch.context() as here:
        here.setattr(graph, "_compiled", None)  # what is kept is not compiled again
        assert np.array_equal(registry.load(str(copy)).embed(images), expected)
    for damage in (whole[:-9], whole[:500] + b"x" + whole[501:], b"", b"no\nsuch\nnetwork"):
        made.write_bytes(damage)
        assert np.array_equal(registry.load(str(copy)).embed(images), expected)
        assert kept.read(made.name) is not None
    kept.write(made.name, "fp32", b"whole, but no network")
    assert np.array_equal(registry.load(str(copy)).embed(images), expected)
    assert "made again" in caplog.text


def test_two_that_keep_at_once_leave_one_whole_network_and_the_oldest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEMASEEK_COMPILED", str(tmp_path / "here"))
    networks = [bytes([at]) * 300_000 for at in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda network: kept.write("same", "fp32", network), networks))
        assert kept.read("same") in [("fp32", network) for network in networks]
        list(pool.map(lambda at: kept.write(kept.key(str(at)), "bf16", b"n"), range(30)))

    assert len(list(kept.folder().iterdir())) <= kept.MOST
    assert all(not path.name.startswith(".") for path in kept.folder().iterdir())
    monkeypatch.setenv("HEMASEEK_COMPILED", "/proc/nowhere")
    kept.write("same", "fp32", b"n")  # no folder to keep it in is no error
    assert kept.read("same") is None
