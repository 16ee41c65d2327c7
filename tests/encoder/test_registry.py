"""Every encoder by its name, and the contract that each of them keeps."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from live import REPOSITORY
from timm.models import save_for_hf

from encoder import registry
from encoder.card import EncoderCard
from encoder.contract import EncoderError, NoPatchTokens
from encoder.networks import baselines, engines, export, published, vit
from encoder.networks.baselines import Baseline
from encoder.networks.published import Published
from encoder.registry import Recipe, UnknownEncoder

OURS = EncoderCard(id="ours", architecture="", dim=48, input_px=28, patch_px=14)


def test_listing_encoders_imports_no_torch() -> None:
    code = (
        "import sys; from encoder import registry; registry.known(); registry.default_encoder(); "
        "heavy = {'torch', 'timm', 'openvino', 'httpx', 'rich'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_known_names_the_families_and_every_card_is_its_own() -> None:
    known = registry.known()
    assert {"colour", "dinov2-s", "dinobloom-g", "reddino-l"} <= set(known)
    assert all(id == card.id for id, card in known.items())
    assert len({card.fingerprint for card in known.values() if card.id in registry.RECIPES}) >= 5


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownEncoder, match="Did you mean 'dinobloom-s'"):
        registry.load("dinobloom_s")


def ours(folder: Path, card: EncoderCard = OURS) -> EncoderCard:
    torch.manual_seed(5)
    kwargs = {"embed_dim": 48, "num_heads": 2, "init_values": 0.5}
    model = timm.create_model(
        "vit_small_patch14_dinov2", num_classes=0, img_size=28, depth=2, **kwargs
    )
    return export.save(
        folder,
        card,
        model.state_dict(),
        timm_name="vit_small_patch14_dinov2",
        img_size=28,
        model_kwargs=kwargs,
    )


def test_a_shipped_encoder_is_known_by_its_name_and_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "SHIPPED", tmp_path)
    monkeypatch.setattr(vit, "choose", lambda f, device, side: engines.Torch(f, device))
    assert registry.default_encoder() == "colour"
    card = ours(tmp_path / "any-folder", replace(OURS, id="shipped-s"))
    (tmp_path / "unfinished").mkdir()
    assert registry.known()["shipped-s"] == card
    assert registry.default_encoder() == "shipped-s"
    assert registry.load("shipped-s", device="cpu").card == card


def test_weights_for_an_encoder_that_brings_its_own_are_refused(tmp_path: Path) -> None:
    ours(tmp_path)
    with pytest.raises(EncoderError, match="brings its own weights"):
        registry.load(str(tmp_path), weights=tmp_path / "other.pth")


@pytest.fixture(name="source")
def _source(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Path | None]:
    """What to load, with weights made here where others publish them; one block, to be quick."""
    id = str(request.param)
    if id == "an export":
        ours(tmp_path)
        return str(tmp_path), None
    if id == "a timm folder":
        args = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 2}
        model = timm.create_model("vit_tiny_patch16_224", num_classes=2, **args)
        model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 32, 32)}
        save_for_hf(model, tmp_path, model_args=args, safe_serialization=True)
        return f"timm:local-dir:{tmp_path}", None
    recipe = registry.RECIPES[id]
    if id in ("colour", "measured"):
        return id, None
    one = next(one for one in (*published.ALL, *baselines.ALL) if one.card.id == id)
    shallow: dict[str, object] = (
        {"depth": 1} if id == "phikon" else {"depth": 1, "init_values": 0.5}
    )
    if isinstance(one, Baseline):
        shallow = {"depths": (1, 1, 1, 1)} if id == "ctranspath" else {"layers": (1, 1, 1, 1)}
    one = replace(one, kwargs=shallow)
    monkeypatch.setitem(registry.RECIPES, id, Recipe(card=recipe.card, build=one.build))
    if recipe.card.dim > 384:  # the engines have their own tests; conversion takes seconds
        monkeypatch.setattr(vit, "choose", lambda f, device, side: engines.Torch(f, device))
    bare = isinstance(one, Published)
    model = (
        vit.bare_model(recipe.card.architecture, 224, one.kwargs) if bare else one.make(one.kwargs)
    )
    made = torch.Generator().manual_seed(1)
    state = {
        name: torch.randn(tensor.shape, generator=made).abs() * 0.05
        if "running_var" in name
        else torch.randn(tensor.shape, generator=made) * 0.05
        for name, tensor in model.state_dict().items()
    }
    torch.save(state, tmp_path / "made.pth")
    return id, tmp_path / "made.pth"


ALIKE = {*(f"dinov2-{size}-registers" for size in "blg"), "resnet50-truncated"}
"""Encoders of which `dinov2-s-registers` and `resnet50` stand for what differs."""


@pytest.mark.parametrize(
    "source",
    [
        *(id for id in registry.RECIPES if id not in ALIKE),
        "an export",
        "a timm folder",
    ],
    indirect=True,
)
def test_every_encoder_keeps_the_contract(
    source: tuple[str, Path | None], rng: np.random.Generator
) -> None:
    id, weights = source
    encoder = registry.load(id, weights=weights, device="cpu")
    card = encoder.card
    images = [rng.integers(0, 256, (60 + 20 * n, 80, 3), dtype=np.uint8) for n in range(3)]
    rows = encoder.embed(images)
    assert rows.shape == (3, card.dim)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows.astype(np.float64), axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    assert np.array_equal(encoder.embed(images), rows)
    alone = encoder.embed(images[1:2])[0]
    assert float(alone @ rows[1]) > engines.MIN_COSINE
    assert encoder.embed([]).shape == (0, card.dim)
    if id != "colour":
        assert card.weights_sha256 is not None
        assert card.fingerprint != replace(card, weights_sha256="0" * 64).fingerprint
    if card.patch_px is None:
        with pytest.raises(NoPatchTokens):
            encoder.tokens(images)
        return
    side = card.input_px // card.patch_px
    cls, patches = encoder.tokens(images)
    assert np.array_equal(cls, rows)
    assert patches.shape == (3, side, side, card.dim)
    assert np.isfinite(patches).all()
