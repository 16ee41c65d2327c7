"""Any timm model: `timm:hf-hub:OWNER/NAME[@REVISION]` or `timm:local-dir:PATH`."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from encoder.card import EncoderCard, Resample
from encoder.contract import EncoderError, Network
from encoder.download import MissingWeights, WeightsFile, locate, verified, weights_folder

if TYPE_CHECKING:
    from torch import nn

PREFIX = "timm:"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""What a timm folder may hold, the preferred one first."""
RESAMPLES = ("bilinear", "bicubic", "lanczos")


def build(source: str, device: str) -> tuple[EncoderCard, Network]:
    """Card and network of a timm source.

    The whole image is squashed to the model's input size; crop settings are not used.

    Raises:
        EncoderError: no such source, a missing or damaged file, or a model of another kind.
    """
    kind, _, place = source.removeprefix(PREFIX).partition(":")
    if kind == "local-dir" and place:
        folder = Path(place).expanduser()
        weights, digest = _local_weights(source, folder)
    elif kind == "hf-hub" and place.count("/") == 1:
        folder, weights, digest = _from_hub(source, place)
    else:
        raise EncoderError(
            f"timm source {source!r} is neither timm:hf-hub:OWNER/NAME[@REVISION] nor "
            "timm:local-dir:PATH"
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        settings = {**config, **config.get("pretrained_cfg", {})}
        architecture = str(config["architecture"])
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(
            f"{folder / 'config.json'} is no configuration written by timm: {error!r}"
        ) from error
    return _load(
        source, architecture, settings, config.get("model_args") or {}, weights, digest, device
    )


def _load(
    source: str,
    architecture: str,
    settings: dict[str, Any],
    model_args: dict[str, Any],
    weights: Path,
    digest: str,
    device: str,
) -> tuple[EncoderCard, Network]:
    from encoder.networks import vit

    side = int(settings.get("input_size", (3, 224, 224))[-1])
    classifier = settings.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    model, interp = _model(architecture, model_args, weights, heads)
    resample = settings.get("interpolation", "bicubic")
    if resample not in RESAMPLES:
        raise EncoderError(f"{source}: interpolation must be one of {RESAMPLES}, got {resample!r}")
    pooling = {"token": "cls", "avg": "mean"}.get(str(getattr(model, "global_pool", "")), "none")
    card = EncoderCard(
        id=source,
        architecture=architecture,
        dim=int(cast(int, model.num_features)),
        input_px=side,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        resample=cast(Resample, resample),
        pooling=cast(Any, pooling),
        patch_px=_patch_px(model, side),
        licence=str(settings.get("license") or "unknown"),
        source=source.removeprefix(PREFIX),
    )
    card = replace(card, weights_sha256=digest, pos_embed_interp=interp)
    return card, vit.network(card, model, "head", device)


def _model(
    architecture: str, model_args: dict[str, Any], weights: Path, heads: tuple[str, ...]
) -> tuple[nn.Module, str | None]:
    """The model with its weights but without classifier `heads`, and how positions were fitted."""
    import timm

    from encoder.networks import checkpoint

    state = checkpoint.read(weights)
    try:
        model: nn.Module = timm.create_model(
            architecture, **{**model_args, "pretrained": False, "num_classes": 0}
        )
    except Exception as error:  # timm raises many kinds on names and arguments
        raise EncoderError(f"timm cannot build {architecture!r}: {error}") from error
    state = checkpoint.to_timm(checkpoint.backbone(state, str(weights)))
    state = {n: t for n, t in state.items() if n.rpartition(".")[0] not in heads}
    interp = checkpoint.fit_positions(state, model, str(weights))
    checkpoint.load_strict(model, state, str(weights))
    return model, interp


def _patch_px(model: nn.Module, side: int) -> int | None:
    """Side of a patch where the model keeps one token per square patch."""
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "patch_size", None)
    if not hasattr(model, "num_prefix_tokens") or size is None or size[0] != size[1]:
        return None
    return int(size[0]) if side % size[0] == 0 else None


def _local_weights(source: str, folder: Path) -> tuple[Path, str]:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name, verified(folder / name, None)
    raise MissingWeights(f"encoder {source!r}: {folder} holds neither {' nor '.join(WEIGHTS)}")


def _from_hub(source: str, place: str) -> tuple[Path, Path, str]:
    """Folder, weights and digest of a model on the Hugging Face hub, fetched where missing."""
    repository, _, revision = place.partition("@")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    revision = revision or "main"

    def file(name: str) -> WeightsFile:
        return WeightsFile(
            name=f"{repository}@{revision}/{name}",
            url=f"{endpoint}/{repository}/resolve/{revision}/{name}",
        )

    locate(source, [file("config.json")])
    weights, digest = locate(source, [file(name) for name in WEIGHTS])
    return weights_folder() / f"{repository}@{revision}", weights, digest
