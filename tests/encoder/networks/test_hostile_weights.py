"""Weights and encoder folders from strangers: nothing in them runs, all are refused in words."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from encoder.contract import EncoderError
from encoder.networks import checkpoint
from encoder.networks.export import load_folder


class Runs:
    """What a pickle calls when it is opened."""

    def __init__(self, call: Any, *words: Any) -> None:
        self.call, self.words = call, words

    def __reduce__(self) -> Any:
        return self.call, self.words


def harmful(marker: Path) -> dict[str, Any]:
    """Objects that each make a file when they are unpickled."""
    touch = f"touch {marker}"
    return {
        "system": Runs(os.system, touch),
        "eval": Runs(eval, f"open({str(marker)!r}, 'w')"),
        "exec": Runs(exec, f"open({str(marker)!r}, 'w')"),
        "import": Runs(__import__, "antigravity"),
        "open": Runs(open, str(marker), "w"),
        "inside": {"teacher": {"backbone.x": Runs(os.system, touch)}},
    }


@pytest.mark.parametrize("kind", ["system", "eval", "exec", "import", "open", "inside"])
@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(
    tmp_path: Path, kind: str, form: str
) -> None:
    marker, path = tmp_path / "ran", tmp_path / "weights.pth"
    content = harmful(marker)[kind]
    if form == "bare":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")

    with pytest.raises(EncoderError, match=r"not unpickled|damaged|cannot be read as weights"):
        checkpoint.read(path)
    assert not marker.exists()


def safetensors(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        safetensors(b"{}", length=1 << 60),
        safetensors(b"[" * 5000),
        safetensors(b'{"a":{"dtype":"F32","shape":[9999999999,9999999999],"data_offsets":[0,4]}}'),
        safetensors(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,400000000000]}}', b"\0" * 4
        ),
        safetensors(b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4),
    ],
)
def test_a_forged_safetensors_file_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match=r"weights\.safetensors"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    "model",
    [
        {"name": "../../../etc/passwd"},
        {"name": "hf-hub:stranger/model"},
        {"name": "vit_small_patch14_dinov2", "kwargs": {"depth": 10**9}},
        {"name": "vit_small_patch14_dinov2", "kwargs": {"embed_dim": "x"}},
        [],
        {"kwargs": {}},
    ],
)
def test_an_encoder_folder_with_a_forged_model_is_refused_in_words(
    tmp_path: Path, model: Any
) -> None:
    card = {"id": "x", "architecture": "vit_small_patch14_dinov2", "dim": 384, "input_px": 224}
    (tmp_path / "card.json").write_text(json.dumps(card))
    (tmp_path / "model.json").write_text(json.dumps(model))
    (tmp_path / "weights.safetensors").write_bytes(safetensors(b"{}"))
    with pytest.raises((EncoderError, ValueError)) as caught:
        load_folder(tmp_path, "cpu")
    assert len(str(caught.value)) > 20
