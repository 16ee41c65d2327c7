"""Any timm folder or hub repository, with the settings that it brings."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import nn

from encoder import registry
from encoder.contract import EncoderError, NoPatchTokens
from encoder.networks import vit
from encoder.networks.engines import Torch

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2}


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vit, "choose", lambda forward, device, side: Torch(forward, device))


def timm_folder(
    folder: Path, name: str = "vit_small_patch16_224", pool: str = "token", safe: bool = True
) -> nn.Module:
    torch.manual_seed(1)
    model: nn.Module = timm.create_model(name, num_classes=5, global_pool=pool, **ARGS)
    model.pretrained_cfg = {  # type: ignore[assignment]
        **model.pretrained_cfg,  # type: ignore[dict-item]
        "input_size": (3, 32, 32),
        "interpolation": "bilinear",
        "mean": (0.1, 0.2, 0.3),
        "license": "mit",
    }
    save_for_hf(model, folder, model_args={**ARGS, "global_pool": pool}, safe_serialization=safe)
    return model.eval()


def own_rows(model: nn.Module, images: np.ndarray, mean: object, std: object) -> np.ndarray:
    x = (torch.from_numpy(images) / 255 - torch.tensor(mean)) / torch.tensor(std)
    with torch.inference_mode():
        features = model.forward_features(x.permute(0, 3, 1, 2))  # type: ignore[operator]
        rows = model.forward_head(features, pre_logits=True)  # type: ignore[operator]
    return nn.functional.normalize(rows).numpy()


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickle"])
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_a_local_timm_folder_gives_the_models_own_vectors(
    safe: bool, pool: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    model = timm_folder(tmp_path, pool=pool, safe=safe)
    encoder = registry.load(f"timm:local-dir:{tmp_path}", device="cpu")
    card = encoder.card
    assert (card.dim, card.input_px, card.patch_px) == (48, 32, 8)
    assert (card.mean, card.resample, card.licence) == ((0.1, 0.2, 0.3), "bilinear", "mit")
    assert card.pooling == ("cls" if pool == "token" else "mean")
    images = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    vectors, patches = encoder.tokens(list(images))
    assert np.abs(vectors - own_rows(model, images, card.mean, card.std)).max() < 1e-6
    assert patches.shape == (2, 4, 4, 48)


def test_a_network_without_patches_embeds_but_has_no_tokens(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    model = timm.create_model("resnet10t", num_classes=3)
    save_for_hf(model, tmp_path, safe_serialization=True)
    encoder = registry.load(f"timm:local-dir:{tmp_path}", device="cpu")
    images = rng.integers(0, 256, (1, 176, 176, 3), dtype=np.uint8)
    assert encoder.card.input_px == 176
    assert encoder.card.pooling == "none"
    expected = own_rows(model.eval(), images, encoder.card.mean, encoder.card.std)
    assert np.abs(encoder.embed(list(images)) - expected).max() < 1e-5
    with pytest.raises(NoPatchTokens):
        encoder.tokens(list(images))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(name="hub")
def _hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub of our own; its folder."""
    root = tmp_path / "hub"
    root.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HEMASEEK_WEIGHTS", str(tmp_path / "weights"))
        yield root
        server.shutdown()
        thread.join()


def test_a_hub_repository_is_fetched_once_by_its_revision(
    hub: Path, rng: np.random.Generator, tmp_path: Path
) -> None:
    model = timm_folder(hub / "someone/cells/resolve/v2", safe=False)
    images = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    first = registry.load("timm:hf-hub:someone/cells@v2", device="cpu")
    expected = own_rows(model, images, first.card.mean, first.card.std)
    assert np.abs(first.embed(list(images)) - expected).max() < 1e-6
    assert (tmp_path / "weights/someone/cells@v2/pytorch_model.bin.sha256").is_file()
    for file in (hub / "someone/cells/resolve/v2").iterdir():
        file.unlink()
    again = registry.load("timm:hf-hub:someone/cells@v2", device="cpu")
    assert again.card == first.card


@pytest.mark.parametrize("source", ["timm:", "timm:hf-hub:only-a-name", "timm:hf_hub:a/b"])
def test_a_source_of_another_form_is_refused(source: str) -> None:
    with pytest.raises(EncoderError, match="neither timm:hf-hub"):
        registry.load(source)


def config_of(folder: Path, **changes: object) -> None:
    """Rewrites config.json; a change of `None` takes the entry out."""
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= changes
    config["pretrained_cfg"] = {k: v for k, v in config["pretrained_cfg"].items() if v is not None}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": None}, "mean has to be three numbers, got None.*pretrained_cfg"),
        ({"std": [0.5]}, r"std has to be three numbers, got \[0.5\]"),
        ({"mean": [None, 0.5, 0.5]}, "mean has to be three numbers"),
        ({"interpolation": "hermite"}, "interpolation must be one of"),
    ],
)
def test_a_configuration_that_does_not_say_what_the_network_sees_is_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    timm_folder(tmp_path)
    config_of(tmp_path, **changes)
    with pytest.raises(EncoderError, match=message):
        registry.load(f"timm:local-dir:{tmp_path}")


def test_a_configuration_without_pretrained_cfg_is_refused_in_words(tmp_path: Path) -> None:
    timm_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_small_patch16_224"}))
    with pytest.raises(EncoderError, match="mean has to be three numbers"):
        registry.load(f"timm:local-dir:{tmp_path}")


def test_the_input_size_of_model_args_counts_where_timm_kept_another(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    model = timm_folder(tmp_path)
    config_of(tmp_path, input_size=[3, 224, 224])  # what save_for_hf writes of a resized model
    encoder = registry.load(f"timm:local-dir:{tmp_path}", device="cpu")
    images = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    expected = own_rows(model, images, encoder.card.mean, encoder.card.std)
    assert encoder.card.input_px == 32
    assert np.abs(encoder.embed(list(images)) - expected).max() < 1e-6


def test_weights_of_another_input_size_are_refused(tmp_path: Path) -> None:
    timm_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_args"]["img_size"] = 64
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="another input size than the 64 px"):
        registry.load(f"timm:local-dir:{tmp_path}")


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {f"model.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"module.{name}": t for name, t in state.items()}},
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {
            "state_dict": {name: torch.zeros_like(t) for name, t in state.items()},
            "state_dict_ema": state,
        },
    ],
    ids=["state_dict", "model", "Lightning", "parallel", "compiled", "running mean"],
)
def test_weights_load_from_what_trainers_wrap_them_in(
    wrapped: Callable[[dict[str, torch.Tensor]], object],
    rng: np.random.Generator,
    tmp_path: Path,
) -> None:
    model = timm_folder(tmp_path, safe=False)
    torch.save(wrapped(model.state_dict()), tmp_path / "pytorch_model.bin")
    encoder = registry.load(f"timm:local-dir:{tmp_path}", device="cpu")
    images = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    expected = own_rows(model, images, encoder.card.mean, encoder.card.std)
    assert np.abs(encoder.embed(list(images)) - expected).max() < 1e-6


def test_a_folder_that_timm_did_not_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="holds neither"):
        registry.load(f"timm:local-dir:{tmp_path}")
    timm_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"no": "architecture"}))
    with pytest.raises(EncoderError, match="no configuration written by timm"):
        registry.load(f"timm:local-dir:{tmp_path}")
