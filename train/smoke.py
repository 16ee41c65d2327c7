"""The whole way in small: draw cells, train, kill, resume, export, load, evaluate."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import numpy as np
from numpy.typing import NDArray

from train.dino.checkpoint import CHECKPOINT

KINDS = {
    # name: (colour of the nucleus, lobes, colour of the cytoplasm)
    "lymphocyte": ((92, 48, 140), 1, (178, 196, 226)),
    "eosinophil": ((104, 62, 150), 2, (226, 138, 120)),
    "neutrophil": ((86, 52, 132), 3, (232, 214, 220)),
    "erythrocyte": ((222, 176, 172), 0, (206, 142, 140)),
}
"""Cells that a few strokes tell apart."""
SETTINGS = {
    "preset": "scratch",
    "embed_dim": 48,
    "depth": 2,
    "heads": 2,
    "patch_px": 8,
    "global_px": 32,
    "local_px": 16,
    "local_crops": 1,
    "steps": 30,
    "batch": 16,
    "prototypes": 64,
    "head_hidden": 64,
    "head_bottleneck": 32,
    "warmup_steps": 5,
    "watch_every": 10,
    "checkpoint_every": 5,
    "log_every": 5,
    "threads": 1,
    "workers": 2,
    "probe_k": 5,
    "device": "cpu",
}
"""A run of seconds."""


@dataclass(frozen=True)
class SmokeReport:
    """What happened."""

    killed_at: int
    """Step of the checkpoint that the killed run left."""
    steps: int
    accuracy: float
    """1-NN accuracy of the loaded encoder on fresh cells."""
    fingerprint: str
    seconds: float


Colour = tuple[int, int, int]


def draw_cell(kind: str, px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One cell of a kind among pale neighbours on a pink ground, px x px x 3."""
    return paint(*KINDS[kind], px, rng)


def paint(
    nucleus: Colour, lobes: int, cytoplasm: Colour, px: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """One cell: its nucleus in so many lobes (0: a pale middle, no nucleus)."""
    y, x = np.mgrid[0:px, 0:px] / px - 0.5
    image = np.full((px, px, 3), (238, 222, 224), float) + rng.normal(0, 4, (px, px, 3))

    def disc(cx: float, cy: float, r: float, colour: Colour) -> None:
        stretch, turn = rng.uniform(0.85, 1.15), rng.uniform(0, np.pi)
        u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        v = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        inside = np.clip((r - np.hypot(u * stretch, v / stretch)) * px / 2, 0, 1)[..., None]
        image[:] = image * (1 - inside) + (np.array(colour) + rng.normal(0, 5, 3)) * inside

    for _ in range(3):
        angle = rng.uniform(0, 2 * np.pi)
        disc(0.5 * np.cos(angle), 0.5 * np.sin(angle), 0.16, (214, 160, 158))
    cx, cy = rng.uniform(-0.06, 0.06, 2)
    disc(cx, cy, rng.uniform(0.27, 0.33), cytoplasm)
    if lobes == 0:
        disc(cx, cy, 0.12, nucleus)
    start = rng.uniform(0, 2 * np.pi)
    for lobe in range(lobes):
        angle = start + lobe * 2 * np.pi / lobes
        away = 0.0 if lobes == 1 else 0.13
        disc(cx + away * np.cos(angle), cy + away * np.sin(angle), 0.24 / lobes**0.5, nucleus)
    return np.asarray(np.clip(image, 0, 255), np.uint8)


def draw_cells(folder: Path, each: int, px: int, seed: int) -> None:
    """`each` cells of every kind as JPEG files, one folder per kind."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for kind in KINDS:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for at in range(each):
            Image.fromarray(draw_cell(kind, px, rng)).save(folder / kind / f"{at:04d}.jpg")


def smoke(out: Path, say: Callable[[str], None] | None = None) -> SmokeReport:
    """Train a tiny encoder on drawn cells, kill it with -9, resume, export, load, evaluate.

    Args:
        out: A new or empty folder.
        say: Callback with a line about each stage.

    Raises:
        RuntimeError: a stage did not do what it should.
    """
    begun = monotonic()
    report = say or (lambda text: None)
    draw_cells(out / "cells", 24, 40, seed=1)
    run = out / "run"
    settings = {
        **SETTINGS,
        "data": [str(out / "cells")],
        "probe": str(out / "cells"),
        "out": str(run),
        "force": True,
    }
    record = out / "smoke.json"
    record.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "train", "resume", "--config", str(record)]
    killed_at = _start_and_kill(command, run)
    report(f"killed with -9; its last checkpoint is of step {killed_at}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode or not (run / "card.json").is_file():
        raise RuntimeError(f"the resumed run failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    report("resumed, finished and exported")
    accuracy, fingerprint = _evaluate(run)
    report(f"loaded again: 1-NN accuracy {accuracy:.3f} on fresh cells, fingerprint {fingerprint}")
    steps = int(SETTINGS["steps"])  # type: ignore[call-overload]
    return SmokeReport(killed_at, steps, accuracy, fingerprint, monotonic() - begun)


def _start_and_kill(command: list[str], run: Path) -> int:
    """Start a run, wait for a checkpoint, kill it; returns the checkpoint's step."""
    from train.dino.checkpoint import load

    process = subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    limit = monotonic() + 120
    while not (run / CHECKPOINT).exists():
        if process.poll() is not None or monotonic() > limit:
            process.kill()
            error = process.stderr.read().decode() if process.stderr else ""
            raise RuntimeError(f"no checkpoint was written before the run ended:\n{error[-2000:]}")
        sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    if process.stderr:
        process.stderr.close()
    state = load(run)
    if state is None or (run / "card.json").exists():
        raise RuntimeError("the run ended before it could be killed")
    return int(state["step"])


def _evaluate(run: Path) -> tuple[float, str]:
    from encoder import registry
    from search.votes.knn import nearest_label

    encoder = registry.load(str(run), device="cpu")
    rng = np.random.default_rng(2)
    kinds = list(KINDS)
    labels = np.repeat(np.arange(len(kinds)), 12)
    known, fresh = (
        encoder.embed([draw_cell(kinds[label], 40, rng) for label in labels]) for _ in range(2)
    )
    predicted = nearest_label(fresh, known, labels, len(kinds), k=1)
    return float((predicted == labels).mean()), encoder.card.fingerprint
