"""Any timm model: `timm:hf-hub:OWNER/NAME[@REVISION]` or `timm:local-dir:PATH`."""

from __future__ import annotations

import json
import os
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
    return _load(source, _read_settings(folder / "config.json"), weights, digest, device)


def _read_settings(path: Path) -> dict[str, Any]:
    """What timm wrote beside the weights, `pretrained_cfg` in one with the rest.

    Raises:
        EncoderError: no such file, or a value is missing that decides what the network sees.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        settings = {**config, **(config.get("pretrained_cfg") or {})}
        settings["architecture"] = str(config["architecture"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise EncoderError(f"{path} is no configuration written by timm: {error!r}") from error
    for name in ("mean", "std"):
        values = settings.get(name)
        if not isinstance(values, list) or [type(v) in (int, float) for v in values] != [True] * 3:
            raise EncoderError(
                f"{path}: {name} has to be three numbers, got {values!r}. Without it nobody knows "
                "what the network was trained to see; write under pretrained_cfg what the training "
                "used (ImageNet's mean is [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225])"
            )
    interpolation = settings.setdefault("interpolation", "bicubic")
    if interpolation not in RESAMPLES:
        raise EncoderError(
            f"{path}: interpolation must be one of {RESAMPLES}, got {interpolation!r}"
        )
    return settings


def _load(
    source: str, settings: dict[str, Any], weights: Path, digest: str, device: str
) -> tuple[EncoderCard, Network]:
    from encoder.networks import vit

    model, side = _model(settings, weights)
    pooling = {"token": "cls", "avg": "mean"}.get(str(getattr(model, "global_pool", "")), "none")
    card = EncoderCard(
        id=source,
        architecture=settings["architecture"],
        dim=int(cast(int, model.num_features)),
        input_px=side,
        mean=cast(Any, tuple(settings["mean"])),
        std=cast(Any, tuple(settings["std"])),
        resample=cast(Resample, settings["interpolation"]),
        pooling=cast(Any, pooling),
        patch_px=_patch_px(model, side),
        licence=str(settings.get("license") or "unknown"),
        source=source.removeprefix(PREFIX),
        weights_sha256=digest,
    )
    return card, vit.network(card, model, "head", device)


def _model(settings: dict[str, Any], weights: Path) -> tuple[nn.Module, int]:
    """The model with its weights but without its classifier, and the side of its input.

    Raises:
        EncoderError: weights of another architecture, or of another input size.
    """
    from encoder.networks import checkpoint

    args = dict(settings.get("model_args") or {})
    side = args.get("img_size") or settings.get("input_size", (3, 224, 224))[-1]
    side = int(side if isinstance(side, int) else side[-1])
    model = _created(settings["architecture"], args)
    own = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if own is not None and int(own[-1]) != side:
        model = _created(settings["architecture"], {**args, "img_size": side})
    state = checkpoint.to_timm(checkpoint.backbone(checkpoint.read(weights), str(weights)))
    classifier = settings.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    state = {name: t for name, t in state.items() if name.rpartition(".")[0] not in heads}
    if interp := checkpoint.fit_positions(state, model, str(weights)):
        raise EncoderError(
            f"{weights} was trained at another input size than the {side} px that config.json "
            f"says: its position embeddings would have to be resampled ({interp}). Write the size "
            "of its training as img_size under model_args"
        )
    checkpoint.load_strict(model, state, str(weights))
    return model, side


def _created(architecture: str, args: dict[str, Any]) -> nn.Module:
    import timm

    try:
        model: nn.Module = timm.create_model(
            architecture, **{**args, "pretrained": False, "num_classes": 0}
        )
    except Exception as error:  # timm raises many kinds on names and arguments
        raise EncoderError(f"timm cannot build {architecture!r}: {error}") from error
    return model


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
