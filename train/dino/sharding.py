"""Networks over several processes: a copy in each, or a part of every weight in each (FSDP2)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from train.config import TrainConfig
from train.dino import loss
from train.dino.model import Network, run_block


def shard(network: Network, device: torch.device) -> None:
    """Leave each process its part of every weight (Zhao et al. 2023; torch's `fully_shard`).

    A block's weights are gathered when it runs and given back after it, in both directions.

    Args:
        network: Still on the CPU, the same in all processes; changed in place.
        device: Where the parts are to lie.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # Scores are views of one tensor, and no loss changes them in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    mesh = init_device_mesh(device.type, (loss.world(),))
    for block in network.backbone.vit.blocks:
        block.forward = partial(run_block, block)  # weights are gathered where a block is called
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(network, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(network, "embed")


def parallel(student: Network, config: TrainConfig, device: torch.device) -> nn.Module:
    """The student as the processes call it, so that their gradients are averaged."""
    if loss.world() == 1 or config.shard:
        return student
    return nn.parallel.DistributedDataParallel(
        student, device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=config.head_warmup_steps > 0 or not config.distils,
        broadcast_buffers=False,
    )  # fmt: skip


def whole(state: Any) -> Any:
    """A nested state with its sharded tensors put together, on the CPU of the first process.

    All processes have to call it; the others get empty tensors in their place.
    """
    if isinstance(state, DTensor):
        full = state.full_tensor()
        return full.cpu() if dist.get_rank() == 0 else full.new_empty(0)
    if isinstance(state, Mapping):
        return {name: whole(one) for name, one in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(whole(one) for one in state)
    return state


def put(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load whole tensors into a network, sharded or not; all processes have to call it."""
    like = network.state_dict()
    network.load_state_dict({name: _as(like[name], one) for name, one in state.items()})


def put_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimiser's whole state, numbered as it was saved, beside sharded weights or not."""
    weights = [one for group in optimizer.param_groups for one in group["params"]]
    parts = {
        at: {
            name: _as(weights[at], one) if one.shape == weights[at].shape else one
            for name, one in values.items()
        }
        for at, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": parts})


def _as(like: Tensor, tensor: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return tensor
    there = tensor.to(like.device_mesh.device_type)
    return distribute_tensor(there, like.device_mesh, like.placements)
