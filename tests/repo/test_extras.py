"""What the extras bring, read from the lock file."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from live import REPOSITORY

from ui.cli.errors import EXTRAS

HEAVY = {"torch", "torchvision", "timm", "triton", "faiss-gpu"}


@pytest.fixture(name="locked", scope="module")
def _locked() -> dict[str, dict[str, Any]]:
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    return {package["name"]: package for package in lock["package"]}


def brought(locked: dict[str, dict[str, Any]], *extras: str) -> set[str]:
    """Every package that an installation with these extras has."""
    found: set[str] = set()
    waiting = [("hemaseek", extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if f"{name}[{extra}]" in found:
            continue
        found |= {name, f"{name}[{extra}]"}
        package = locked[name]
        needs = (
            package["optional-dependencies"][extra] if extra else package.get("dependencies", [])
        )
        for need in needs:
            waiting += [(need["name"], more) for more in ("", *need.get("extra", []))]
    return found


@pytest.mark.parametrize("extra", ["app", "search", "ingest", "ui"])
def test_the_application_and_its_images_have_neither_pytorch_nor_cuda(
    locked: dict[str, dict[str, Any]], extra: str
) -> None:
    found = brought(locked, extra)

    assert not found & HEAVY
    assert not {name for name in found if name.startswith(("nvidia", "cuda"))}


@pytest.mark.parametrize("extra", ["app", "search", "ingest", "ui"])
def test_every_image_has_what_decodes_pictures(
    locked: dict[str, dict[str, Any]], extra: str
) -> None:
    decoders = {"pillow", "opencv-python-headless", "simplejpeg", "tifffile"}
    assert decoders <= brought(locked, extra)


def test_torch_train_and_gpu_bring_what_they_are_named_for(
    locked: dict[str, dict[str, Any]],
) -> None:
    assert {"torch", "timm", "openvino"} <= brought(locked, "torch")
    assert {"torch", "peft", "tensorboard", "scikit-learn"} <= brought(locked, "train")
    assert "faiss-gpu" not in brought(locked, "train")
    assert {"torch", "faiss-gpu"} <= brought(locked, "gpu")
    named = brought(locked, "app", "torch", "train", "gpu", "atlas", "formats")
    assert {name for name in named if not name.startswith("hemaseek[")} <= brought(locked, "all")


def test_a_missing_package_names_an_extra_that_brings_it() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS.values()) <= set(project["optional-dependencies"])
