"""The training loop, to be read from top to bottom: watch, save, step, log, export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import inf
from time import perf_counter

import torch
import torch.distributed as dist
from torch import Tensor

from train.config import TrainConfig
from train.dino import checkpoint, loss, schedule, sharding
from train.dino.export import WorseThanParent, export, guard, merged
from train.dino.progress import Progress
from train.dino.run import Run, prepare, save
from train.dino.step import autocast, one_step
from train.dino.watch import Look, collapsed, look

Say = Callable[[str], None]


class Collapsed(RuntimeError):
    """The encoder lost what tells images apart; the best checkpoint was kept."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    finished: bool
    """False where `max_minutes` stopped it: run the same command to go on."""
    best: Look | None
    exported: bool
    refusal: str = ""
    """Why nothing was exported, if something was to be."""


def train(config: TrainConfig, say: Say | None = None) -> Outcome:
    """Train, or go on with what `config.out` holds, and export at the end.

    Args:
        config: The run.
        say: Callback for progress, called line by line.

    Raises:
        Collapsed: and the best checkpoint before it was kept, not exported.
        CheckpointError: `out` holds a run with other settings.
        DataError, EncoderError: data or a start that cannot be used.
    """
    begun = perf_counter()
    run = prepare(config)
    log = Progress(
        config.out, run.step, config.total_steps,
        writes=run.rank == 0, tensorboard=config.tensorboard, say=say,
    )  # fmt: skip
    report_data(run, log)
    # AdamW's squares of tiny gradients run ten times slower as subnormal numbers.
    torch.set_flush_denormal(run.device.type == "cpu")
    try:
        collapse, late = step_on(run, log, begun)
    finally:
        torch.set_flush_denormal(False)  # whatever else this process does is not to be rounded
        run.feed.close()
        log.close()
    return finish(run, log, collapse, late)


def step_on(run: Run, log: Progress, begun: float) -> tuple[str | None, bool]:
    """Train until the last step, the time limit or a collapse, and save there.

    Args:
        run: Where to start; it is changed.
        log: Where losses, speed and looks are written.
        begun: `perf_counter` when the limit of `max_minutes` began.

    Returns:
        Why it collapsed, or `None`; and whether the time was over.
    """
    config = run.config
    drawn, collapse = 0, None
    sums: dict[str, Tensor] = {}
    while True:
        done = run.step == config.total_steps
        if run.step % config.watch_every == 0 or done:
            watch(run, log)
            collapse = collapsed(run.looks, config)
        over = perf_counter() - begun > (config.max_minutes or inf) * 60
        late = agreed(over, run.device)
        ends = done or late or collapse is not None
        if ends or (run.step and run.step % config.checkpoint_every == 0):
            save(run)
        if ends:
            return collapse, late
        losses, images = one_step(run)
        drawn += images
        run.step += 1
        for name, value in losses.items():
            sums[name] = sums[name] + value if name in sums else value
        if run.step % config.log_every == 0:
            report_step(run, log, sums, drawn)
            sums = {}


def agreed(flag: bool, device: torch.device) -> bool:
    """Whether any process says so: all must stop at the same step."""
    if loss.world() == 1:
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value)


def watch(run: Run, log: Progress) -> None:
    """Look at the teacher, note it, and keep its weights if it is the best so far."""
    if run.looks and run.looks[-1].step == run.step:
        return  # resumed here: already seen
    mean, std = (torch.tensor(v, device=run.device) for v in (run.start.mean, run.start.std))

    def embed(pixels: Tensor) -> Tensor:
        x = pixels.to(run.device).float() / 255
        x = (x - mean[:, None, None]) / std[:, None, None]
        with torch.no_grad(), autocast(run.config, run.device):
            return run.teacher.embed(x)

    seen = look(run.step, run.probe, embed, run.config.probe_k)
    run.looks.append(seen)
    # Without a probe there is no telling which is best: the last one is kept.
    better = run.best is None or seen.knn is None or seen.knn >= (run.best.knn or 0.0)
    if better and run.step:
        run.best = seen
        state = merged(run.teacher.backbone.vit)
        head = sharding.whole(run.teacher.guide_head.state_dict()) if run.teacher.guide_head else {}
        if run.rank == 0:
            checkpoint.save(
                run.config.out, {"step": run.step, "vit": state, "guide": head}, "best.pt"
            )
    log.write("watch", run.step, **{k: v for k, v in asdict(seen).items() if k != "step"})
    score = "" if seen.knn is None else f", kNN {seen.knn:.4f}"
    log.say(f"step {run.step}: rank {seen.rank:.1f}, mean cosine {seen.cosine:.4f}{score}")


def report_data(run: Run, log: Progress) -> None:
    """How many images there are, and which could not be read."""
    images = run.feed.images
    corrupt = images.corrupt.titles
    if run.step == 0:
        log.write(
            "run", 0, images=len(images), corrupt=len(corrupt), corrupt_images=corrupt,
            parameters=sum(p.numel() for p in run.student.backbone.parameters()),
            cut=images.notes(),
        )  # fmt: skip
    for note in images.notes():
        log.say(note)
    log.say(
        f"{len(images)} images from {len(images.sources)} sources, {len(corrupt)} unreadable; "
        f"step {run.step} of {run.config.total_steps} on {run.device}"
    )


def report_step(run: Run, log: Progress, sums: dict[str, Tensor], drawn: int) -> None:
    """The means since the last report, the schedule, and the speed.

    Raises:
        Collapsed: a loss that is no number.
    """
    means = {name: round(float(v) / run.config.log_every, 6) for name, v in sums.items()}
    now = schedule.at(run.config, run.step - 1)
    speed = log.rate(run.step, drawn, run.feed.waited)
    log.write(
        "step", run.step, **means, lr=now.lr, weight_decay=now.weight_decay,
        momentum=now.momentum, teacher_temperature=now.teacher_temperature,
        corrupt=len(run.feed.images.corrupt.titles), **speed,
    )  # fmt: skip
    log.say(
        f"step {run.step}/{run.config.total_steps} loss {means['loss']:.4f} "
        f"{speed['images_per_s']:.0f} images/s, {speed['minutes_left']:.1f} min left"
    )
    if means["loss"] != means["loss"]:
        raise Collapsed(f"the loss is not a number at step {run.step}; lower the learning rate")


def finish(run: Run, log: Progress, collapse: str | None, late: bool) -> Outcome:
    """Export the best checkpoint if the run is over and the guards agree.

    Raises:
        Collapsed: after a collapse, unless forced.
    """
    done = run.step == run.config.total_steps
    if collapse and not run.config.force:
        kept = f"the best (step {run.best.step}) is in best.pt" if run.best else "none was kept"
        raise Collapsed(f"stopped at step {run.step}: {collapse}; {kept}")
    if late and not done:
        log.say(f"stopped at step {run.step} after {run.config.max_minutes} minutes; resumable")
        return Outcome(run.step, False, run.best, False)
    try:
        exported = run.rank == 0 and export_best(run, collapse)
    except WorseThanParent as refusal:
        log.say(f"not exported: {refusal}")
        return Outcome(run.step, True, run.best, False, str(refusal))
    return Outcome(run.step, True, run.best, exported)


def export_best(run: Run, collapse: str | None = None) -> bool:
    """Write the best checkpoint's encoder into the run's folder.

    Raises:
        WorseThanParent: the guards do not agree.
    """
    best = run.best or run.looks[-1]
    guard(run.config, run.looks[0], best, collapse)
    state = checkpoint.load(run.config.out, "best.pt")
    if state is None:
        raise checkpoint.CheckpointError(f"{run.config.out} has no best.pt to export")
    score = "" if best.knn is None else f", kNN {best.knn:.4f} (start: {run.looks[0].knn:.4f})"
    note = f"Preset {run.config.preset}, step {best.step} of {run.config.total_steps}{score}."
    export(run.config.out, run.config, run.start, state["vit"], note, state["guide"])
    return True
