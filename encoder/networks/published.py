"""The vision transformers that others publish: DINOv2, DinoBloom, RedDino, Phikon, by size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from encoder.card import EncoderCard
from encoder.contract import EncoderError, Network, need_torch
from encoder.download import WeightsFile, locate

SIZES = {"s": ("small", 384), "b": ("base", 768), "l": ("large", 1024), "g": ("giant", 1536)}
"""Letter to timm's word and the width."""
META = "https://dl.fbaipublicfiles.com/dinov2"
HUB = "https://huggingface.co"
ZENODO = "https://zenodo.org/records/10908163/files"
DINOV2_SHA256 = {
    "s": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    "b": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    "l": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "g": "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3",
}
"""As other projects pin Meta's files (finegrain-ai/refiners); not computed here."""
DINOBLOOM_SHA256 = {"s": "c2f7990b003e89bcece80e379fb8fe0ba2ec392ce19b286e8a294abd99568e44"}
"""As KatherLab/STAMP pins the Zenodo file; the other sizes are not known."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A vision transformer whose weights others publish."""

    card: EncoderCard
    files: tuple[WeightsFile, ...]
    """The same weights in their published layouts; the first is the one that is downloaded."""
    own_grid: bool = False
    """Trained at `input_px`: position embeddings of another grid mean that it is another model."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments for timm besides the image size."""

    def build(
        self, card: EncoderCard, weights: Path | None, device: str
    ) -> tuple[EncoderCard, Network]:
        """Find or fetch the weights and load them, whatever their layout."""
        need_torch(f"encoder {card.id!r}")
        path, digest = locate(card.id, self.files, weights)
        from encoder.networks import checkpoint, vit

        model = vit.bare_model(card.architecture, card.input_px, self.kwargs)
        state = checkpoint.to_timm(checkpoint.backbone(checkpoint.read(path), str(path)))
        interp = checkpoint.fit_positions(state, model, str(path))
        if interp and self.own_grid:
            raise EncoderError(
                f"{path}: encoder {card.id!r} has position embeddings for {card.input_px} px, and "
                f"these would have to be resampled ({interp}); it is a file of another encoder"
            )
        checkpoint.load_strict(model, state, str(path))
        card = replace(card, weights_sha256=digest, pos_embed_interp=interp)
        return card, vit.network(card, model, "cls", device)


def dinov2(size: str, registers: bool = False) -> Published:
    """Meta's DINOv2 (Oquab et al. 2023, arXiv 2304.07193).

    Args:
        size: s, b, l or g.
        registers: With four register tokens (Darcet et al. 2023, arXiv 2309.16588).
    """
    word, dim = SIZES[size]
    file = f"dinov2_vit{size}14_{'reg4_' if registers else ''}pretrain.pth"
    architecture = f"vit_{word}_patch14_{'reg4_' if registers else ''}dinov2"
    timm_name = f"{architecture}.lvd142m"
    return Published(
        card=EncoderCard(
            id=f"dinov2-{size}-registers" if registers else f"dinov2-{size}",
            architecture=architecture,
            dim=dim,
            patch_px=14,
            licence="Apache-2.0",
            source=f"{META}/dinov2_vit{size}14/{file}",
            notes="Natural images; trained at 518 px, used at 224 px.",
        ),
        files=(
            WeightsFile(
                name=file,
                url=f"{META}/dinov2_vit{size}14/{file}",
                sha256=None if registers else DINOV2_SHA256[size],
            ),
            WeightsFile(
                name=f"{timm_name}/model.safetensors",
                url=f"{HUB}/timm/{timm_name}/resolve/main/model.safetensors",
            ),
        ),
    )


def dinobloom(size: str) -> Published:
    """DinoBloom: DINOv2 further trained on white cells (Koch et al. 2024, arXiv 2404.05022)."""
    word, dim = SIZES[size]
    native = f"vit_{word}_patch14_224.dinobloom"
    files = [
        WeightsFile(
            name=f"DinoBloom-{size.upper()}.pth",
            url=f"{ZENODO}/DinoBloom-{size.upper()}.pth?download=1",
            sha256=DINOBLOOM_SHA256.get(size),
        ),
        WeightsFile(
            name=f"pytorch_model_{size}.bin",
            url=f"{HUB}/MarrLab/DinoBloom/resolve/main/pytorch_model_{size}.bin",
        ),
        WeightsFile(
            name=f"{native}/model.safetensors",
            url=f"{HUB}/1aurent/{native}/resolve/main/model.safetensors",
        ),
    ]
    if size == "g":
        files.pop()  # not published in timm's layout
    return Published(
        card=EncoderCard(
            id=f"dinobloom-{size}",
            architecture=f"vit_{word}_patch14_dinov2",
            dim=dim,
            patch_px=14,
            resample="lanczos",  # as in its training and its feature extraction
            licence="Apache-2.0",
            source="https://zenodo.org/records/10908163",
            notes="White blood cells and marrow. Licence as stated by its repository.",
        ),
        files=tuple(files),
        own_grid=True,
    )


def reddino(size: str) -> Published:
    """RedDino: DINOv2 further trained on red cells (Zedda et al. 2025, arXiv 2508.08180)."""
    word, dim = SIZES[size]
    name = f"RedDino-{word}"
    return Published(
        card=EncoderCard(
            id=f"reddino-{size}",
            architecture=f"vit_{word}_patch14_dinov2",
            dim=dim,
            patch_px=14,
            licence="unclear: cc-by-nc-4.0 in the upload's configuration; check the model card",
            source=f"{HUB}/Snarcy/{name}",
            notes="Red blood cells. The released training code reads images as BGR, its evaluation "
            "as RGB; RGB is used here. Compare both on labelled cells before relying on it.",
        ),
        files=tuple(
            WeightsFile(name=f"{name}/{file}", url=f"{HUB}/Snarcy/{name}/resolve/main/{file}")
            for file in ("model.safetensors", "pytorch_model.bin")
        ),
    )


PHIKON = Published(
    card=EncoderCard(
        id="phikon",
        architecture="vit_base_patch16_224",
        dim=768,
        patch_px=16,
        resample="bilinear",
        licence="Owkin non-commercial",
        source=f"{HUB}/owkin/phikon",
        notes="H&E tissue (PanCancer40M of TCGA), Filiot et al. 2023.",
    ),
    files=tuple(
        WeightsFile(name=f"phikon/{file}", url=f"{HUB}/owkin/phikon/resolve/main/{file}")
        for file in ("model.safetensors", "pytorch_model.bin")
    ),
    own_grid=True,
)

ALL = (
    *(dinov2(size) for size in "sblg"),
    *(dinov2(size, registers=True) for size in "sblg"),
    *(dinobloom(size) for size in "sblg"),
    *(reddino(size) for size in "sbl"),
    PHIKON,
)
