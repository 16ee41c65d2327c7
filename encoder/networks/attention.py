"""The attention of a timm transformer's last block, worked out beside its own fused kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from encoder.networks.forward import Forward


def last_attention(forward: Forward, pixels: Tensor) -> NDArray[np.float32] | None:
    """What the last block's class token looks at, mean over heads.

    Args:
        forward: The network.
        pixels: n x side x side x 3, uint8.

    Returns:
        n x patches; `None` where the last block has no plain multi-head attention.
    """
    blocks = getattr(forward.model, "blocks", None)
    attention: Any = getattr(blocks[-1], "attn", None) if blocks is not None else None
    if attention is None or not hasattr(attention, "qkv"):
        return None
    seen: list[Tensor] = []

    def remember(_module: Any, given: tuple[Tensor, ...]) -> None:
        seen.append(given[0])

    hook = attention.register_forward_pre_hook(remember)
    try:
        with torch.inference_mode():
            device = forward.scale.device
            forward(pixels.to(device))
            x = seen[-1]
            n, tokens, _ = x.shape
            heads = int(attention.num_heads)
            qkv = attention.qkv(x).reshape(n, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
            q, k = attention.q_norm(qkv[0]), attention.k_norm(qkv[1])
            queries = q[:, :, :1] if forward.pool != "mean" and forward.prefix else q
            weights = ((queries * attention.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
            mean = weights.mean(dim=(1, 2))[:, forward.prefix :]
    finally:
        hook.remove()
    return np.asarray(mean.float().cpu().numpy(), np.float32)
