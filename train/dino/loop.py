"""The training loop, to be read from top to bottom: watch, save, step, log."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from train.augmentation.masking import Masks, draw_masks
from train.augmentation.views import make_views
from train.config import TrainConfig, read_config
from train.data.images import Feed, Images, Order, open_source
from train.data.source import DataError
from train.dino import checkpoint, loss, schedule
from train.dino.export import WorseThanParent, export, guard, merged
from train.dino.model import (
    Network,
    Start,
    build_networks,
    compiled_steps,
    load_start,
    move_teacher,
)
from train.dino.progress import Progress
from train.dino.watch import Look, Probe, collapsed, load_probe, look

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


@dataclass
class Run:
    """Everything that a step touches."""

    config: TrainConfig
    device: torch.device
    rank: int
    start: Start
    student: Network
    teacher: Network
    parallel: nn.Module
    centers: nn.ModuleDict
    optimizer: torch.optim.AdamW
    feed: Feed
    probe: Probe
    guide: Tensor | None = None
    step: int = 0
    looks: list[Look] = field(default_factory=list)
    best: Look | None = None


def train(config: TrainConfig, say: Say | None = None) -> Outcome:
    """Train, or go on with what `config.out` holds, and export at the end.

    Args:
        config: The run.
        say: Told about progress, line by line.

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
    drawn, collapse = 0, None
    sums: dict[str, Tensor] = {}
    try:
        # AdamW's squares of tiny gradients run ten times slower as subnormal numbers.
        torch.set_flush_denormal(run.device.type == "cpu")
        while True:
            if run.step % config.watch_every == 0 or run.step == config.total_steps:
                watch(run, log)
                collapse = collapsed(run.looks, config)
            late = (
                config.max_minutes is not None and perf_counter() - begun > config.max_minutes * 60
            )
            late = agreed(late, run.device)
            done = run.step == config.total_steps
            if (run.step and run.step % config.checkpoint_every == 0) or done or late or collapse:
                save(run)
            if done or late or collapse:
                break
            losses, images = one_step(run)
            drawn += images
            run.step += 1
            for name, value in losses.items():
                sums[name] = sums[name] + value if name in sums else value
            if run.step % config.log_every == 0:
                report_step(run, log, sums, drawn)
                sums = {}
    finally:
        torch.set_flush_denormal(False)  # whatever else this process does is not to be rounded
        run.feed.close()
        log.close()
    return finish(run, log, collapse, late)


def prepare(config: TrainConfig) -> Run:
    """Build everything, and put a checkpoint's state into it if there is one.

    Raises:
        CheckpointError: the checkpoint in `config.out` belongs to other settings.
    """
    device, rank = machine(config)
    config.out.mkdir(parents=True, exist_ok=True)
    record = config.out / "config.json"
    state = checkpoint.load(config.out)
    if state is not None:
        differs = config.same_run(read_config(record))
        if differs:
            raise checkpoint.CheckpointError(
                f"{config.out} holds a run with other {', '.join(differs)}; resume with its "
                "config.json, or choose another folder"
            )
    if rank == 0:
        checkpoint.write_text(record, config.model_dump_json(indent=2) + "\n")
    images = Images(
        [open_source(path) for path in config.data],
        config.decoded_px, config.resample, config.max_corrupt,
    )  # fmt: skip
    order = Order([len(s) for s in images.sources], config.weights, config.seed)
    start = load_start(config)
    guide = load_guide(config, len(images))
    width = 0 if guide is None else guide.shape[1]
    student, teacher = (n.to(device) for n in build_networks(start, config, width))
    if device.type == "cpu":
        plain_attention(student, teacher)
    if config.compile:
        student.backbone.steps = teacher.backbone.steps = compiled_steps()
    centers = build_centers(config).to(device)
    depth = len(student.backbone.vit.blocks)
    optimizer = torch.optim.AdamW(
        schedule.param_groups(student, config, depth), betas=config.betas, fused=True
    )
    feed = Feed(images, order, device, config.hold, config.workers)
    probe = load_probe(config, config.plan()[-1].global_px) or plain_probe(images, order)
    run = Run(
        config, device, rank, start, student, teacher, student, centers, optimizer, feed, probe,
        None if guide is None else guide.to(device),
    )  # fmt: skip
    if loss.world() > 1:
        run.parallel = nn.parallel.DistributedDataParallel(
            student, device_ids=[device.index] if device.type == "cuda" else None,
            find_unused_parameters=config.head_warmup_steps > 0 or not config.distils,
            broadcast_buffers=False,
        )  # fmt: skip
    if state is not None:
        restore(run, state)
    return run


def load_guide(config: TrainConfig, images: int) -> Tensor | None:
    """The rows of `config.guide`, one for each image.

    Raises:
        DataError: no table of finite numbers, or of another length.
    """
    if config.guide is None:
        return None
    try:
        rows = np.load(config.guide, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"guide {config.guide} is no .npy file that can be read: {error}") from None
    if rows.ndim != 2 or len(rows) != images or not np.isfinite(rows).all():
        raise DataError(
            f"guide {config.guide} has to hold finite numbers, a row for each of {images} images; "
            f"its shape is {rows.shape}. Measure the same sources in the same order"
        )
    return torch.from_numpy(rows.astype(np.float32))


def machine(config: TrainConfig) -> tuple[torch.device, int]:
    """The device of this process and its rank; joins the others under `torchrun`."""
    if config.threads:
        torch.set_num_threads(config.threads)
    cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    rank = int(os.environ.get("RANK", "0"))
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    if not cuda:
        return torch.device("cpu"), rank
    torch.backends.cuda.matmul.allow_tf32 = True
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device, rank


def plain_attention(*networks: Network) -> None:
    """Write attention out: at a few hundred tokens the CPU's fused backward is no faster.

    In bf16 it takes four times as long (50 tokens, 64 wide).
    """
    for network in networks:
        for block in network.backbone.vit.blocks:
            block.attn.fused_attn = False


def build_centers(config: TrainConfig) -> nn.ModuleDict:
    """What makes targets of the teacher's scores, for each loss."""
    sizes = {"dino": config.prototypes, "ibot": config.prototypes}
    if config.separate_ibot_head:
        sizes["ibot"] = config.ibot_prototypes or config.prototypes
    if config.centering == "sinkhorn_knopp":
        return nn.ModuleDict({name: loss.SinkhornKnopp() for name in sizes})
    return nn.ModuleDict({name: loss.MovingAverage(size) for name, size in sizes.items()})


def plain_probe(images: Images, order: Order, n: int = 256) -> Probe:
    """Training images without labels: enough to see a collapse."""
    found = (images.decode(int(at)) for at in order.take(0, min(n, len(images))))
    rows = np.stack([image for image in found if image is not None])
    return Probe(torch.from_numpy(rows).permute(0, 3, 1, 2), None)


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
    own = part.batch // loss.world()
    micro = min(config.micro_batch or own, own)
    place = position + run.rank * own
    totals: dict[str, Tensor] = {}
    pieces = own // micro
    for piece in range(pieces):
        pixels = run.feed.batch(place + piece * micro, micro)
        wanted = None if run.guide is None else run.guide[torch.from_numpy(run.feed.numbers)]
        announce(run, place, own, micro, piece, part.batch)
        last = piece == pieces - 1
        value, parts = forward(run, pixels, part, now, generator, wanted)
        with synced(run.parallel, last):
            (value / pieces).backward()
        for name, one in parts.items():
            totals[name] = totals.get(name, torch.zeros((), device=run.device)) + one / pieces
    totals["grad_norm"] = clip(run)
    if now.backbone_frozen:
        for p in run.student.backbone.parameters():
            p.grad = None
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    move_teacher(run.teacher, run.student, now.momentum)
    return totals, part.batch


def announce(run: Run, place: int, own: int, micro: int, piece: int, batch: int) -> None:
    """Tell the feed which batch comes next, so that it decodes while the device works."""
    at = place + (piece + 1) * micro
    if at >= place + own:
        if run.step + 1 == run.config.total_steps:
            return
        part, position = schedule.part_at(run.config, run.step + 1)
        if part.batch != batch:
            return  # another stage: its first batch is decoded when it is asked for
        at = position + run.rank * own
    run.feed.expect(at, micro)


def forward(
    run: Run,
    pixels: Tensor,
    part: Any,
    now: schedule.Now,
    generator: torch.Generator,
    wanted: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Views, teacher, student and losses of one micro-batch."""
    config = run.config
    facts = run.start.parent
    mean = facts.mean if facts else (0.485, 0.456, 0.406)
    std = facts.std if facts else (0.229, 0.224, 0.225)
    views = make_views(pixels, config, part.global_px, part.local_px, generator, mean, std)
    masks = None
    if config.ibot_weight:
        side = part.global_px // run.student.backbone.patch
        masks = draw_masks(
            len(views.globals_), side, config.mask_probability, config.mask_ratio, generator
        ).to(run.device)
    index = masks.index if masks else None
    with autocast(config, run.device):
        teacher = {}
        if config.distils:
            with torch.no_grad():
                teacher = run.teacher(views.globals_, None, index)
        student = run.parallel(
            views.globals_, masks.patches if masks else None, index, views.locals_,
            config.drop_path, now.backbone_frozen,
        )  # fmt: skip
    return losses(config, run.centers, student, teacher, masks, now.teacher_temperature, wanted)


def losses(
    config: TrainConfig,
    centers: nn.ModuleDict,
    student: dict[str, Tensor],
    teacher: dict[str, Tensor],
    masks: Masks | None,
    temperature: float,
    wanted: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum, and its parts for the log.

    The DINO loss is 2 / (2 + 2 L) times the cross-entropy of the global views with each other,
    plus 1 / (2 + 2 L) times the sum over the local views with both (L local views per image);
    KoLeo is summed over the two global views (DINOv2, ssl_meta_arch.py).
    """
    parts: dict[str, Tensor] = {}
    value = student["cls"].new_zeros((), dtype=torch.float32)
    if config.distils:
        value = distillation(config, centers, student, teacher, masks, temperature, parts)
    if config.contrast_weight:
        parts["contrast"] = loss.contrastive_loss(student["contrast"], config.contrast_temperature)
        value = value + config.contrast_weight * parts["contrast"]
    if wanted is not None:
        parts["guide"] = loss.guide_loss(student["guide"], wanted.repeat(2, 1))
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
    parts: dict[str, Tensor],
) -> Tensor:
    """The weighted DINO and iBOT losses; their parts go into `parts`."""
    tau = config.student_temperature
    targets = centers["dino"](teacher["dino"], temperature)
    first, second = targets.chunk(2)
    scale = 1 / (2 + 2 * config.local_crops)
    global_scale = config.dino_global_scale
    crossed = loss.dino_loss([student["dino"]], [torch.cat([second, first])], tau)
    parts["dino_global"] = crossed * (2 * scale if global_scale is None else global_scale)
    if "local" in student:
        local = list(student["local"].chunk(config.local_crops))
        parts["dino_local"] = loss.dino_loss(local, [first, second], tau) * scale
    value = config.dino_weight * torch.stack(list(parts.values())).sum()
    if masks is not None:
        patches = centers["ibot"](teacher["ibot"], temperature)
        views = len(masks.patches)
        parts["ibot"] = loss.ibot_loss(student["ibot"], patches, masks.weights, views, tau)
        value = value + config.ibot_weight * parts["ibot"]
    return value


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """bf16 where it was asked for, or by itself on a GPU."""
    wanted = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def synced(network: nn.Module, last: bool) -> Any:
    """Exchange gradients only with the last micro-batch of a step."""
    from contextlib import nullcontext

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
    return norms[0].detach()


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
    facts = run.start.parent
    mean = torch.tensor(facts.mean if facts else (0.485, 0.456, 0.406), device=run.device)
    std = torch.tensor(facts.std if facts else (0.229, 0.224, 0.225), device=run.device)

    def embed(pixels: Tensor) -> Tensor:
        x = pixels.to(run.device).float() / 255
        x = (x - mean[:, None, None]) / std[:, None, None]
        with torch.no_grad(), autocast(run.config, run.device):
            tokens = run.teacher.backbone(x)
        if run.config.distils:
            return tokens[:, 0]  # type: ignore[no-any-return]
        # Nothing taught the class token: the mean of the patches is what was learned.
        return tokens[:, run.teacher.backbone.prefix :].mean(dim=1)  # type: ignore[no-any-return]

    seen = look(run.step, run.probe, embed, run.config.probe_k)
    run.looks.append(seen)
    # Without a probe there is no telling which is best: the last one is kept.
    better = run.best is None or seen.knn is None or seen.knn >= (run.best.knn or 0.0)
    if better and run.step:
        run.best = seen
        if run.rank == 0:
            state = merged(run.teacher.backbone.vit)
            head = run.teacher.guide_head.state_dict() if run.teacher.guide_head else {}
            checkpoint.save(
                run.config.out, {"step": run.step, "vit": state, "guide": head}, "best.pt"
            )
    log.write("watch", run.step, **{k: v for k, v in asdict(seen).items() if k != "step"})
    score = "" if seen.knn is None else f", kNN {seen.knn:.4f}"
    log.say(f"step {run.step}: rank {seen.rank:.1f}, mean cosine {seen.cosine:.4f}{score}")


def save(run: Run) -> None:
    """Write the checkpoint: random state and data position are the step itself."""
    if run.rank == 0:
        checkpoint.save(
            run.config.out,
            {
                "step": run.step,
                "student": run.student.state_dict(),
                "teacher": run.teacher.state_dict(),
                "centers": run.centers.state_dict(),
                "optimizer": run.optimizer.state_dict(),
                "looks": [asdict(one) for one in run.looks],
                "best": asdict(run.best) if run.best else None,
            },
        )
    if loss.world() > 1:
        dist.barrier()


def restore(run: Run, state: dict[str, Any]) -> None:
    """Put a checkpoint's state into a fresh run."""
    run.student.load_state_dict(state["student"])
    run.teacher.load_state_dict(state["teacher"])
    run.centers.load_state_dict(state["centers"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.step = state["step"]
    run.looks = [Look(**one) for one in state["looks"]]
    run.best = Look(**state["best"]) if state["best"] else None


def report_data(run: Run, log: Progress) -> None:
    """How many images there are, and which could not be read."""
    images = run.feed.images
    corrupt = images.corrupt.titles
    if run.step == 0:
        log.write(
            "run", 0, images=len(images), corrupt=len(corrupt), corrupt_images=corrupt,
            parameters=sum(p.numel() for p in run.student.backbone.parameters()),
        )  # fmt: skip
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
