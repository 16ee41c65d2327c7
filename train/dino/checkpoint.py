"""Checkpoints that survive a kill at any moment and resume exactly."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from encoder.durable import left_behind, replacing

CHECKPOINT = "checkpoint.pt"
FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used."""


def save(folder: Path, state: Mapping[str, Any], name: str = CHECKPOINT) -> None:
    """Write, fsync, rename, fsync the folder: the state is there whole, or the one before is.

    What a run that was killed left half written goes first; a folder has one run at a time.

    Raises:
        CheckpointError: it cannot be written, mostly since the disk is full.
    """
    for left in left_behind(folder / name):
        left.unlink(missing_ok=True)
    try:
        with replacing(folder / name) as file:
            torch.save({"format": FORMAT, **state}, file)
    except (OSError, RuntimeError) as error:  # PyTorch's writer hides the disk's error in its own
        free = shutil.disk_usage(folder).free
        raise CheckpointError(
            f"{folder / name} could not be written ({error.__context__ or error}); "
            f"{free / 1e9:.1f} GB of the disk are free. What was there before is kept: "
            "make room, and run the same command again"
        ) from error


def load(folder: Path, name: str = CHECKPOINT) -> dict[str, Any] | None:
    """The saved state, on the CPU, without running code from it; `None` if there is none.

    Raises:
        CheckpointError: damaged, or of another format.
    """
    path = folder / name
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise a dozen kinds
        raise CheckpointError(f"{path} cannot be read: {error}; remove it to begin anew") from error
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {state.get('format')}, expected {FORMAT}")
    return state
