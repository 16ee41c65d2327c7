"""One optimiser step: views, teacher, student, losses, gradients, and the teacher's move."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from train.augmentation.masking import Masks, draw_masks
from train.augmentation.views import make_views
from train.config import Part, TrainConfig
from train.dino import loss, schedule
from train.dino.model import move_teacher
from train.dino.run import Run


def one_step(run: Run) -> tuple[dict[str, Tensor], int]:
    """One optimiser step.

    Everything random in it follows from (seed, step, process), so a resumed run draws what an
    undisturbed one would.

    Returns:
        The losses, and how many images of all processes they are means over.
    """
    config, step = run.config, run.step
    part, position = schedule.part_at(config, step)
    now = schedule.at(config, step)
    schedule.set_groups(run.optimizer.param_groups, now)
    seed = (config.seed * 1_000_003 + step) * 4096 + run.rank
    torch.manual_seed(seed)  # which images skip a branch
    generator = torch.Generator().manual_seed(seed + 2**40)
    totals: dict[str, Tensor] = {}
    own = pieces(part.batch, loss.world(), run.rank, config.micro_batch)
    for at, (start, count) in enumerate(own):
        pixels = run.feed.batch(position + start, count)
        guide = {}
        if run.guide is not None:
            guide["guide"] = run.guide[torch.from_numpy(run.feed.numbers)]
        announce(run, own[at + 1 :])
        value, parts = forward(run, pixels, guide, part, now, generator)
        # Gradients are averaged over the processes: each image is to weigh 1 / batch.
        share = count * loss.world() / part.batch
        with synced(run.parallel, at == len(own) - 1):
            (value * share).backward()
        for name, one in parts.items():
            totals[name] = totals.get(name, torch.zeros((), device=run.device)) + one * share
    totals["grad_norm"] = clip(run)
    if now.backbone_frozen:
        for p in run.student.backbone.parameters():
            p.grad = None
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    move_teacher(run.teacher, run.student, now.momentum)
    return totals, part.batch


def pieces(batch: int, world: int, rank: int, most: int | None) -> list[tuple[int, int]]:
    """The micro-batches of one process: where each begins in the batch, and its images.

    Any batch fits: processes and their micro-batches differ by at most one image. All processes
    have equally many micro-batches, because Sinkhorn-Knopp pools them.

    Args:
        batch: Images of the step, at least `world`.
        world: Processes.
        rank: Which of them.
        most: Largest micro-batch, while each process has an image for every one of them; `None`
            for all images of the process at once.
    """
    longest = -(-batch // world)
    count = min(-(-longest // (most or longest)), batch // world)
    edges = [batch * at // (world * count) for at in range(rank * count, (rank + 1) * count + 1)]
    return [(start, end - start) for start, end in pairwise(edges)]


def announce(run: Run, rest: list[tuple[int, int]]) -> None:
    """Name the next micro-batch to the feed, which decodes it while the device works.

    Args:
        run: Whose feed.
        rest: What is left of this step (`pieces`); with nothing left, the next step's comes.
    """
    step = run.step if rest else run.step + 1
    if step == run.config.total_steps:
        return
    part, position = schedule.part_at(run.config, step)
    own = rest or pieces(part.batch, loss.world(), run.rank, run.config.micro_batch)
    run.feed.expect(position + own[0][0], own[0][1])


def forward(
    run: Run,
    pixels: Tensor,
    guide: dict[str, Tensor],
    part: Part,
    now: schedule.Now,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Views, teacher, student and losses of one micro-batch.

    Args:
        run: Networks and configuration.
        pixels: n x 3 x side x side, uint8.
        guide: The images' rows of the guide under `guide`; empty without one.
        part: The stage that the step belongs to.
        now: What the schedule says at this step.
        generator: Of views and masks.

    Returns:
        The loss, and its parts for the log.
    """
    config, start = run.config, run.start
    views = make_views(
        pixels, config, part.global_px, part.local_px, generator, start.mean, start.std
    )
    masks = None
    if config.ibot_weight:
        side = part.global_px // run.student.backbone.patch
        masks = draw_masks(
            len(views.globals_), side, config.mask_probability, config.mask_ratio, generator
        ).to(run.device)
    index = masks.index if masks else None
    with autocast(config, run.device):
        targets = guide
        if config.distils:
            with torch.no_grad():
                targets = guide | run.teacher(views.globals_, None, index)
        student = run.parallel(
            views.globals_, masks.patches if masks else None, index, views.locals_,
            config.drop_path, now.backbone_frozen,
        )  # fmt: skip
    return losses(config, run.centers, student, targets, masks, now.teacher_temperature)


def losses(
    config: TrainConfig,
    centers: nn.ModuleDict,
    student: dict[str, Tensor],
    targets: dict[str, Tensor],
    masks: Masks | None,
    temperature: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of all losses, and its parts for the log.

    KoLeo is summed over the two global views (DINOv2, ssl_meta_arch.py).

    Args:
        config: The weights.
        centers: What makes targets of the teacher's scores.
        student: What `Network.forward` returns.
        targets: The same of the teacher, and the guide's rows under `guide` if there is a guide.
        masks: The masked patches; `None` without iBOT.
        temperature: Of the teacher.
    """
    parts: dict[str, Tensor] = {}
    value = student["cls"].new_zeros((), dtype=torch.float32)
    if config.distils:
        value, parts = distillation(config, centers, student, targets, masks, temperature)
    if config.contrast_weight:
        parts["contrast"] = loss.contrastive_loss(student["contrast"], config.contrast_temperature)
        value = value + config.contrast_weight * parts["contrast"]
    if "guide" in targets:
        parts["guide"] = loss.guide_loss(student["guide"], targets["guide"].repeat(2, 1))
        value = value + config.guide_weight * parts["guide"]
    if config.koleo_weight:
        one, two = student["cls"].chunk(2)
        parts["koleo"] = loss.koleo_loss(one) + loss.koleo_loss(two)
        value = value + config.koleo_weight * parts["koleo"]
    parts["loss"] = value
    return value, {name: one.detach() for name, one in parts.items()}


def distillation(
    config: TrainConfig,
    centers: nn.ModuleDict,
    student: dict[str, Tensor],
    teacher: dict[str, Tensor],
    masks: Masks | None,
    temperature: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the DINO and iBOT losses, and its parts. Arguments as of `losses`.

    The DINO loss is 2 / (2 + 2 L) times the cross-entropy of the global views with each other,
    plus 1 / (2 + 2 L) times the sum over the local views with both (L local views per image;
    DINOv2, ssl_meta_arch.py).
    """
    tau = config.student_temperature
    centred = centers["dino"](teacher["dino"], temperature)
    first, second = centred.chunk(2)
    scale = 1 / (2 + 2 * config.local_crops)
    global_scale = config.dino_global_scale
    crossed = loss.dino_loss([student["dino"]], [torch.cat([second, first])], tau)
    parts = {"dino_global": crossed * (2 * scale if global_scale is None else global_scale)}
    if "local" in student:
        local = list(student["local"].chunk(config.local_crops))
        parts["dino_local"] = loss.dino_loss(local, [first, second], tau) * scale
    value = config.dino_weight * torch.stack(list(parts.values())).sum()
    if masks is not None:
        patches = centers["ibot"](teacher["ibot"], temperature)
        views = len(masks.patches)
        parts["ibot"] = loss.ibot_loss(student["ibot"], patches, masks.weights, views, tau)
        value = value + config.ibot_weight * parts["ibot"]
    return value, parts


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """bf16 where the config says so, and on a GPU unless it says otherwise."""
    wanted = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def synced(network: nn.Module, last: bool) -> Any:
    """Exchange gradients only with the last micro-batch of a step."""
    no_sync = getattr(network, "no_sync", None)
    return nullcontext() if last or no_sync is None else no_sync()


def clip(run: Run) -> Tensor:
    """Limit the gradients' norm of the backbone and of each head; returns the backbone's."""
    norms = [
        nn.utils.clip_grad_norm_(part.parameters(), run.config.clip or float("inf"))
        for part in (
            run.student.backbone,
            run.student.dino_head,
            run.student.ibot_head,
            run.student.contrast_head,
            run.student.guide_head,
        )
        if part is not None
    ]
    norm = norms[0].detach()
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
