"""A training run: built from its configuration, saved to a checkpoint, and restored from it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from search.disk.atomic import write_durably
from train.config import TrainConfig, read_config
from train.data.images import Feed, Images, Order, open_sources
from train.data.source import DataError
from train.dino import checkpoint, loss, schedule, sharding
from train.dino.model import Network, Start, build_networks, compiled_steps, load_start
from train.dino.watch import Look, Probe, load_probe


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


def prepare(config: TrainConfig) -> Run:
    """Build everything, and put a checkpoint's state into it if there is one.

    Raises:
        CheckpointError: the checkpoint in `config.out` belongs to other settings.
        DataError: data that cannot be used, or fewer images in a step than processes.
    """
    device, rank = machine(config)
    if (least := min(part.batch for part in config.plan())) < loss.world():
        raise DataError(
            f"a batch of {least} leaves some of {loss.world()} processes without an image; "
            "raise --batch or start fewer processes"
        )
    state = last_state(config)
    if rank == 0:
        record = config.model_dump_json(indent=2) + "\n"
        write_durably(config.out / "config.json", record.encode())
    images = Images(
        open_sources(config.data, config, config.workers),
        config.decoded_px, config.resample, config.max_corrupt,
    )  # fmt: skip
    order = Order([len(s) for s in images.sources], config.weights, config.seed)
    start = load_start(config)
    guide = load_guide(config, len(images))
    width = 0 if guide is None else guide.shape[1]
    student, teacher = build_networks(start, config, width)
    if device.type == "cpu":
        plain_attention(student, teacher)
    for network in (student, teacher):
        if config.shard and loss.world() > 1:
            sharding.shard(network, device)
        network.to(device)
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
        config, device, rank, start, student, teacher,
        sharding.parallel(student, config, device), centers, optimizer, feed, probe,
        None if guide is None else guide.to(device),
    )  # fmt: skip
    if state is not None:
        restore(run, state)
    return run


def last_state(config: TrainConfig) -> dict[str, Any] | None:
    """The checkpoint in `config.out`, a folder that is made where it is missing.

    Raises:
        CheckpointError: it belongs to other settings, or is damaged.
    """
    config.out.mkdir(parents=True, exist_ok=True)
    state = checkpoint.load(config.out)
    if state is not None:
        differs = config.same_run(read_config(config.out / "config.json"))
        if differs:
            raise checkpoint.CheckpointError(
                f"{config.out} holds a run with other {', '.join(differs)}; resume with its "
                "config.json, or choose another folder"
            )
    return state


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


def plain_probe(images: Images, order: Order) -> Probe:
    """Training images without labels: enough to see a collapse."""
    found = (images.decode(int(at)) for at in order.take(0, min(256, len(images))))
    rows = np.stack([image for image in found if image is not None])
    return Probe(torch.from_numpy(rows).permute(0, 3, 1, 2), None)


def save(run: Run) -> None:
    """Write the checkpoint: random state and data position are the step itself."""
    tensors = (run.student, run.teacher, run.centers, run.optimizer)
    student, teacher, centers, optimizer = (sharding.whole(one.state_dict()) for one in tensors)
    if run.rank == 0:
        checkpoint.save(
            run.config.out,
            {
                "step": run.step,
                "student": student,
                "teacher": teacher,
                "centers": centers,
                "optimizer": optimizer,
                "looks": [asdict(one) for one in run.looks],
                "best": asdict(run.best) if run.best else None,
            },
        )
    if loss.world() > 1:
        dist.barrier()


def restore(run: Run, state: dict[str, Any]) -> None:
    """Put a checkpoint's state into a fresh run."""
    sharding.put(run.student, state["student"])
    sharding.put(run.teacher, state["teacher"])
    run.centers.load_state_dict(state["centers"])
    sharding.put_optimizer(run.optimizer, state["optimizer"])
    run.step = state["step"]
    run.looks = [Look(**one) for one in state["looks"]]
    run.best = Look(**state["best"]) if state["best"] else None
