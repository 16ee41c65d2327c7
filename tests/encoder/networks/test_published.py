"""Every published layout against a transformer written here, from the papers' formulas alone."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from encoder.contract import EncoderError
from encoder.networks import checkpoint, published, vit
from encoder.networks.engines import Torch
from encoder.networks.published import Published

State = dict[str, Tensor]
HEADS = {"s": 6, "b": 12, "l": 16, "g": 24}


def dinov2_state(size: str, *, depth: int = 2, grid: int = 16) -> State:
    """Random weights under the names and shapes that DINOv2 publishes."""
    dim = published.SIZES[size][1]
    made = torch.Generator().manual_seed(7)

    def noise(*shape: int, scale: float) -> Tensor:
        return torch.randn(*shape, generator=made) * scale

    state = {
        "cls_token": noise(1, 1, dim, scale=0.5),
        "pos_embed": noise(1, grid * grid + 1, dim, scale=0.5),
        "mask_token": noise(1, dim, scale=1.0),
        "patch_embed.proj.weight": noise(dim, 3, 14, 14, scale=0.04),
        "patch_embed.proj.bias": noise(dim, scale=0.1),
        "norm.weight": 1 + noise(dim, scale=0.2),
        "norm.bias": noise(dim, scale=0.2),
    }
    hidden = {"w12": 8192, "w3": 4096} if size == "g" else {"fc1": 4 * dim, "fc2": 4 * dim}
    first, second = hidden
    for block in range(depth):
        linears = {
            "attn.qkv": (3 * dim, dim),
            "attn.proj": (dim, dim),
            f"mlp.{first}": (hidden[first], dim),
            f"mlp.{second}": (dim, hidden[second]),
        }
        for name, (rows, columns) in linears.items():
            state[f"blocks.{block}.{name}.weight"] = noise(rows, columns, scale=columns**-0.5)
            state[f"blocks.{block}.{name}.bias"] = noise(rows, scale=0.1)
        for norm in ("norm1", "norm2"):
            state[f"blocks.{block}.{norm}.weight"] = 1 + noise(dim, scale=0.2)
            state[f"blocks.{block}.{norm}.bias"] = noise(dim, scale=0.2)
        for scale in ("ls1", "ls2"):
            state[f"blocks.{block}.{scale}.gamma"] = 0.5 + noise(dim, scale=0.1)
    return state


def reference(state: State, heads: int, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
    """CLS (n x dim) and patch tokens (n x 16 x 16 x dim), in float64, by the formulas alone."""
    s = {name: tensor.double() for name, tensor in state.items()}
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (torch.from_numpy(pixels).double() / 255 - mean) / std
    n, dim = len(x), s["cls_token"].shape[-1]
    patches = x.reshape(n, 16, 14, 16, 14, 3).permute(0, 1, 3, 5, 2, 4).reshape(n, 256, 3 * 196)
    tokens = patches @ s["patch_embed.proj.weight"].reshape(dim, -1).T + s["patch_embed.proj.bias"]
    x = torch.cat([s["cls_token"].expand(n, 1, dim), tokens], dim=1) + s["pos_embed"]

    def normed(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * s[f"{name}.weight"] + s[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    for block in range(1 + max(int(k.split(".")[1]) for k in s if k.startswith("blocks."))):
        at = f"blocks.{block}"
        q, k, v = (
            linear(normed(x, f"{at}.norm1"), f"{at}.attn.qkv")
            .reshape(n, 257, 3, heads, dim // heads)
            .permute(2, 0, 3, 1, 4)
        )
        weights = torch.softmax(q @ k.transpose(-1, -2) / (dim // heads) ** 0.5, dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(n, 257, dim)
        x = x + linear(mixed, f"{at}.attn.proj") * s[f"{at}.ls1.gamma"]
        y = normed(x, f"{at}.norm2")
        if f"{at}.mlp.w12.weight" in s:
            gate, value = linear(y, f"{at}.mlp.w12").chunk(2, dim=-1)
            y = linear(gate * torch.sigmoid(gate) * value, f"{at}.mlp.w3")
        else:
            y = linear(y, f"{at}.mlp.fc1")
            y = linear(y * (1 + torch.erf(y / 2**0.5)) / 2, f"{at}.mlp.fc2")
        x = x + y * s[f"{at}.ls2.gamma"]
    x = normed(x, "norm")
    return x[:, 0], x[:, 1:].reshape(n, 16, 16, dim)


def training_checkpoint(state: State, path: Path) -> Path:
    """DinoBloom on Zenodo and RedDino's original: the teacher, its backbone and its heads."""
    teacher = {f"backbone.{name}": tensor for name, tensor in state.items()}
    teacher |= {
        "dino_head.mlp.0.weight": torch.zeros(4, 4),
        "ibot_head.last_layer.weight_v": torch.zeros(4, 4),
    }
    torch.save({"teacher": teacher}, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def flat(state: State, path: Path) -> Path:
    """DinoBloom on the hub, and Meta's own files."""
    torch.save(state, path.with_suffix(".bin"))
    return path.with_suffix(".bin")


def chunked(state: State, path: Path) -> Path:
    """DINOv2's own trainer: the teacher with its blocks in chunks, one block in each here."""
    blocks = [name.split(".") for name in state]
    names = [".".join([b[0], b[1], *b[1:]] if b[0] == "blocks" else b) for b in blocks]
    teacher = dict(zip((f"backbone.{name}" for name in names), state.values(), strict=True))
    torch.save({"teacher": teacher | {"dino_head.mlp.0.weight": torch.zeros(2, 2)}}, path)
    return path


def chunks_that_count_anew(state: State, path: Path) -> Path:
    """A copy of that trainer which numbers the blocks from 0 in every chunk."""
    names = (re.sub(r"^blocks\.(\d+)\.", r"blocks.\1.0.", name) for name in state)
    torch.save({"teacher": dict(zip(names, state.values(), strict=True))}, path)
    return path


def whole_training(state: State, path: Path) -> Path:
    """Student, teacher and losses in one file, as a run is saved to go on from."""
    model = {f"student.backbone.{name}": torch.zeros_like(t) for name, t in state.items()}
    model |= {f"teacher.backbone.{name}": tensor for name, tensor in state.items()}
    model |= {"teacher.dino_head.x": torch.zeros(1), "dino_loss.center": torch.zeros(1)}
    torch.save({"model": model, "optimizer": {"step": 5}, "iteration": 5}, path)
    return path


def sharded_names(state: State, path: Path) -> Path:
    """Names of a model that ran on several GPUs, in half precision."""
    teacher = {
        f"module.backbone._fsdp_wrapped_module.{re.sub('^blocks', 'blocks.0', name)}": t.half()
        for name, t in state.items()
    }
    torch.save({"teacher": teacher}, path)
    return path


def timm_native(state: State, path: Path) -> Path:
    """What timm uploads: its own names, no mask token, safetensors."""
    renamed = {
        name.replace("mlp.w12.", "mlp.fc1.").replace("mlp.w3.", "mlp.fc2."): tensor
        for name, tensor in state.items()
        if name != "mask_token"
    }
    save_file(renamed, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def shallow(one: Published, depth: int) -> Published:
    return replace(one, kwargs={"depth": depth})


@pytest.fixture(name="_float32")
def _float32_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactness is asked of the loaders; the faster engines have their own tests."""
    monkeypatch.setattr(vit, "choose", lambda forward, device, side: Torch(forward, device))


@pytest.fixture(name="images")
def _images(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.integers(0, 256, (224, 224, 3), dtype=np.uint8) for _ in range(2)]


@pytest.mark.usefixtures("_float32")
@pytest.mark.parametrize(
    ("one", "write"),
    [
        (published.dinov2("s"), flat),
        (published.dinov2("b"), timm_native),
        (published.dinov2("l"), flat),
        (published.dinov2("g"), flat),
        (published.dinobloom("s"), training_checkpoint),
        (published.dinobloom("s"), flat),
        (published.dinobloom("s"), timm_native),
        (published.dinobloom("g"), training_checkpoint),
        (published.reddino("s"), timm_native),
        (published.reddino("s"), training_checkpoint),
        (published.reddino("s"), chunked),
        (published.reddino("b"), chunks_that_count_anew),
        (published.dinobloom("b"), whole_training),
        (published.dinov2("g"), chunked),
    ],
    ids=lambda value: value.card.id if isinstance(value, Published) else value.__name__,
)
def test_a_published_layout_gives_the_vectors_of_the_formulas(
    one: Published, write: object, images: list[np.ndarray], tmp_path: Path
) -> None:
    size = one.card.id[-1]
    depth = 1 if size in "lg" else 2
    state = dinov2_state(size, depth=depth)
    path = write(state, tmp_path / "checkpoint")  # type: ignore[operator]
    card, network = shallow(one, depth).build(one.card, path, "cpu")
    cls, patches = network.tokens(images)
    expected_cls, expected_patches = reference(state, HEADS[size], np.stack(images))
    assert np.abs(cls - expected_cls.numpy()).max() < 1e-5
    assert np.abs(patches - expected_patches.numpy()).max() < 1e-5
    assert np.array_equal(network.vectors(images), cls)
    assert card.pos_embed_interp is None


@pytest.mark.usefixtures("_float32")
def test_names_of_several_gpus_in_half_precision_give_nearly_the_same(
    images: list[np.ndarray], tmp_path: Path
) -> None:
    one, state = shallow(published.dinobloom("s"), 2), dinov2_state("s")
    _, network = one.build(one.card, sharded_names(state, tmp_path / "w"), "cpu")
    expected, _ = reference(state, 6, np.stack(images))
    assert np.abs(network.vectors(images) - expected.numpy()).max() < 0.05


def test_blocks_keep_their_order_from_ten_chunks_on() -> None:
    state = {f"blocks.{at // 3}.{at}.norm1.bias": torch.tensor(at) for at in reversed(range(40))}
    assert checkpoint.to_timm(state) == {f"blocks.{at}.norm1.bias": at for at in range(40)}


def test_one_processs_part_of_a_sharded_run_is_refused_in_words(tmp_path: Path) -> None:
    one = published.dinobloom("s")
    torch.save({"model": {"teacher.backbone._flat_param": torch.zeros(9)}}, tmp_path / "w")
    with pytest.raises(EncoderError, match=r"one process's part.*teacher_checkpoint\.pth"):
        one.build(one.card, tmp_path / "w", "cpu")


@pytest.mark.usefixtures("_float32")
def test_position_embeddings_of_518_px_are_resampled_and_the_card_says_so(
    images: list[np.ndarray], tmp_path: Path
) -> None:
    one = published.dinov2("s")
    state = dinov2_state("s", grid=37)
    card, network = shallow(one, 2).build(one.card, flat(state, tmp_path / "meta"), "cpu")
    assert card.pos_embed_interp == "bicubic-antialias-37to16"
    assert card.fingerprint != replace(card, pos_embed_interp=None).fingerprint
    table = state["pos_embed"][:, 1:].reshape(1, 37, 37, 384).permute(0, 3, 1, 2)
    small = functional.interpolate(table, (16, 16), mode="bicubic", antialias=True)
    patches = small.permute(0, 2, 3, 1).reshape(1, 256, 384)
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], patches], dim=1)
    expected, _ = reference(state, 6, np.stack(images))
    assert np.abs(network.vectors(images) - expected.numpy()).max() < 1e-5


@pytest.mark.usefixtures("_float32")
def test_an_image_of_another_size_is_squashed_by_the_filter_that_the_card_names(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    one = published.dinobloom("s")
    path = flat(dinov2_state("s"), tmp_path / "w")
    _, network = shallow(one, 2).build(one.card, path, "cpu")
    image = rng.integers(0, 256, (300, 410, 3), dtype=np.uint8)
    small = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.LANCZOS))
    assert np.array_equal(network.vectors([image]), network.vectors([small]))


def test_dinobloom_with_the_position_embeddings_of_another_grid_is_refused(tmp_path: Path) -> None:
    one = published.dinobloom("s")
    path = flat(dinov2_state("s", grid=37), tmp_path / "w")
    with pytest.raises(EncoderError, match="file of another encoder"):
        shallow(one, 2).build(one.card, path, "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("norm.bias"), r"1 missing \(norm.bias\)"),
        (lambda s: s.update({"head.weight": torch.zeros(2)}), r"1 unexpected \(head.weight\)"),
        (lambda s: s.update({"norm.bias": torch.zeros(7)}), r"1 misshapen \(norm.bias \(7,\)"),
        (lambda s: s.update({"cls_token": "text"}), r"other values at \['cls_token'\]"),
    ],
    ids=["missing", "unexpected", "misshapen", "no tensor"],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    change: object, message: str, tmp_path: Path
) -> None:
    one = published.dinov2("s")
    state = dinov2_state("s", depth=1)
    change(state)  # type: ignore[operator]
    with pytest.raises(EncoderError, match=message):
        shallow(one, 1).build(one.card, flat(state, tmp_path / "w"), "cpu")


def test_a_teacher_with_more_than_backbone_and_heads_is_refused(tmp_path: Path) -> None:
    one = published.reddino("s")
    torch.save(
        {"teacher": {"backbone.x": torch.zeros(1), "neck.x": torch.zeros(1)}}, tmp_path / "w"
    )
    with pytest.raises(EncoderError, match=r"neck\.x"):
        one.build(one.card, tmp_path / "w", "cpu")


class Payload:
    """Would make a folder if it were unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_that_holds_code_is_refused_and_not_run(tmp_path: Path) -> None:
    one = published.dinobloom("s")
    torch.save({"teacher": Payload(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(EncoderError, match="not unpickled"):
        one.build(one.card, tmp_path / "evil.pth", "cpu")
    assert not (tmp_path / "ran").exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    one = published.dinov2("s")
    for name in ("cut.pth", "cut.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(EncoderError, match=name):
            one.build(one.card, tmp_path / name, "cpu")
