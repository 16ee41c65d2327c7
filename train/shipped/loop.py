"""Training against the clock: resumable, with a running mean of the weights."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoder.durable import left_behind, replacing
from train.augmentation.randomisation import Randomisation
from train.shipped import labels
from train.shipped.data import SHARES, Draw, Pictures
from train.shipped.loss import reversed_gradient, total
from train.shipped.recipes import Recipe

KEEP_S = 180.0
"""Seconds between checkpoints."""
LOG_S = 30.0
"""Seconds between lines of the log."""
LAST, LOG = "last.pt", "log.jsonl"
MEAN, STD = 127 / 255, 128 / 255
"""Subtracted from pixels, and what they are divided by, as ImageNet's weights of Lite0 want it."""
DROPPED = 0.1
"""Share of the pooled features that a step does not see."""


class Classifier(nn.Module):
    """The network, and a direction for each leaf of the label tree."""

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.network = network
        self.frozen = recipe.frozen
        self.prefix = int(getattr(network, "num_prefix_tokens", 0))
        self.kinds = nn.Parameter(0.05 * torch.randn(len(labels.LEAVES), recipe.dim))
        self.places = nn.Linear(recipe.dim, len(SHARES)) if recipe.reversal else None
        """Guesses the laboratory, so that the network can learn to hide it."""

    def forward(self, views: Tensor) -> Tensor:
        """Views n x 3 x side x side, 0 to 1, to vectors of length 1."""
        network: Any = self.network
        given = {"frozen": self.frozen} if self.frozen else {}
        cells = network.forward_features((views - MEAN) / STD, **given)[:, self.prefix :]
        pooled = functional.dropout(cells.mean(1), DROPPED, self.training)
        return functional.normalize(network.project(pooled))


@dataclass
class Run:
    """What a checkpoint holds, and what it is made of."""

    folder: Path
    recipe: Recipe
    classifier: Classifier
    mean: Classifier
    optimiser: torch.optim.Optimizer
    step: int = 0
    spent: float = 0.0
    """Seconds of training."""
    seen: list[Tensor] = field(default_factory=list)
    """Losses since the last line of the log."""

    def keep(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "classifier": self.classifier.state_dict(),
            "mean": self.mean.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "spent": self.spent,
        }
        for left in left_behind(self.folder / LAST):  # of a slice that was killed
            left.unlink(missing_ok=True)
        with replacing(self.folder / LAST) as file:
            torch.save(state, file)

    def resume(self) -> None:
        """Go on where the last slice stopped, if there was one."""
        if not (self.folder / LAST).is_file():
            return
        state = torch.load(self.folder / LAST, map_location="cpu", weights_only=True)
        self.classifier.load_state_dict(state["classifier"])
        self.mean.load_state_dict(state["mean"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.spent = int(state["step"]), float(state["spent"])

    def note(self, **facts: Any) -> None:
        """Add a line to the log."""
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": self.step, "seconds": round(self.spent, 1), **facts}))
            log.write("\n")


def device_of(wanted: str) -> torch.device:
    """Where training runs: `cpu`, or a GPU where there is one."""
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def prepared(
    folder: Path, recipe: Recipe, network: nn.Module, device: torch.device, start: Path | None
) -> Run:
    """A run in a folder, at its start or where it stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    classifier = Classifier(network, recipe)
    if start is not None:
        state = torch.load(start, map_location="cpu", weights_only=True)
        classifier.load_state_dict(state["mean"])
    classifier.to(device).to(memory_format=torch.channels_last)
    run = Run(folder, recipe, classifier, copy.deepcopy(classifier), _optimiser(classifier, recipe))
    run.resume()
    return run


def _optimiser(classifier: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    network: Any = classifier.network
    fresh = [*network.project.parameters(), classifier.kinds]
    fresh += [] if classifier.places is None else [*classifier.places.parameters()]
    apart = {id(weight) for weight in fresh}
    if classifier.frozen:
        for part in [network.stem, *network.stages][: classifier.frozen]:
            apart |= {id(weight) for weight in part.parameters()}
    rest = [weight for weight in network.parameters() if id(weight) not in apart]
    groups = [
        {"params": [w for w in rest if w.ndim > 1], "base": recipe.rate},
        {"params": [w for w in rest if w.ndim < 2], "base": recipe.rate, "weight_decay": 0.0},
        {"params": fresh, "base": 3 * recipe.rate},
    ]
    return torch.optim.AdamW(
        groups, lr=recipe.rate, weight_decay=recipe.decay, betas=(0.9, 0.99),
        fused=classifier.kinds.device.type == "cuda",
    )  # fmt: skip


def train(
    run: Run,
    sets: list[Pictures],
    randomisation: Randomisation,
    *,
    minutes: float,
    slice_minutes: float | None,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> bool:
    """Train until the time is over, or the recipe's views, or this slice of it.

    Args:
        run: At its start, or resumed.
        sets: What to learn from.
        randomisation: Makes the views.
        minutes: Of training in all.
        slice_minutes: Of this call; `None` for no limit.
        seed: With the step, of everything that is drawn.
        say: Takes a line of the log for people.

    Returns:
        Whether the time or the views are over.
    """
    torch.manual_seed(seed + run.step)
    device = run.classifier.kinds.device
    draw, family = Draw(sets, device), labels.siblings().to(device)
    run.note(recipe=asdict(run.recipe), sets={one.name: len(one.labels) for one in sets})
    last = logged = saved = started = time.monotonic()
    while (done := _done(run, minutes)) < 1:
        if slice_minutes is not None and last - started > 60 * slice_minutes:
            break
        _rates(run, done)
        run.seen.append(_step(run, draw, family, randomisation))
        now = time.monotonic()
        run.spent, last = run.spent + now - last, now
        if now - logged > LOG_S:
            speed = len(run.seen) * run.recipe.batch / (now - logged)
            loss, logged, run.seen = float(torch.stack(run.seen).mean()), now, []
            run.note(loss=round(loss, 4), views_per_s=round(speed, 1))
            say(f"step {run.step}, {run.spent / 60:.1f} min, loss {loss:.3f}, {speed:.0f} views/s")
        if now - saved > KEEP_S:
            run.keep()
            saved = now
    run.keep()
    run.note()
    return _done(run, minutes) >= 1


def _done(run: Run, minutes: float) -> float:
    """Share of the run that is over: 1 at its end."""
    if run.recipe.views is not None:
        return run.step * run.recipe.batch / run.recipe.views
    return run.spent / (60 * minutes)


def _rates(run: Run, done: float) -> None:
    """A rise over the first steps, then half a cosine over the run."""
    rise = min(1.0, (run.step + 1) / run.recipe.warmup)
    for group in run.optimiser.param_groups:
        group["lr"] = group["base"] * rise * (0.5 + 0.5 * math.cos(math.pi * min(done, 1.0)))


def _step(run: Run, draw: Draw, family: Tensor, randomisation: Randomisation) -> Tensor:
    """One batch; returns its loss."""
    batch = draw.batch(run.recipe.batch)
    views = randomisation(batch.images, batch.um, batch.fields)
    run.classifier.train()
    with torch.autocast("cuda", torch.bfloat16, enabled=views.device.type == "cuda"):
        vectors = run.classifier(views.contiguous(memory_format=torch.channels_last))
    vectors = vectors.float()
    loss = total(vectors, run.classifier.kinds, family, batch.allowed, batch.laboratories)
    if run.classifier.places is not None:
        loss = loss + reversed_gradient(
            vectors, run.classifier.places, batch.laboratories, run.recipe.reversal
        )
    run.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(run.classifier.parameters(), 5.0)
    run.optimiser.step()
    run.step += 1
    keep = min(run.recipe.average, (1 + run.step) / (10 + run.step))
    with torch.no_grad():
        for mean, now in zip(run.mean.parameters(), run.classifier.parameters(), strict=True):
            mean.lerp_(now, 1 - keep)
    return loss.detach()
