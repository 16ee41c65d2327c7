"""Figure 3 of both papers: patch tokens as colours, several encoders on the same images.

    python -m train.evaluation.patches cell.jpg smear.jpg --encoders dinov2-s hemaseek-s --out f.png

The first three principal components of an encoder's patch tokens, over all the images together, are
red, green and blue, black where the first one sees background
(`encoder.explain.correspondence.joint_colours`). Colours of two encoders mean nothing to each
other.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import CliPositionalArg

from encoder.contract import RGB, Encoder
from encoder.explain.correspondence import joint_colours
from encoder.image import read_rgb, resize
from encoder.registry import Device
from train.evaluation.command import config_of, status_of
from train.evaluation.vectors import open_encoder

GAP, HEAD = 8, 24
"""Pixels between pictures, and above them for the names."""


class PatchesConfig(BaseModel):
    """Draw the patch tokens of several encoders as colours, beside the images."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    images: CliPositionalArg[list[Path]]
    """Pictures of cells, patches of smears, or tiles."""
    encoders: tuple[str, ...]
    """Names, folders or timm sources that the registry loads; each needs patch tokens."""
    out: Path
    """PNG to write: a row for each image, a column for each encoder."""
    side: int = Field(default=224, ge=32)
    """Side of a picture in the figure."""
    seed: int = Field(default=0, ge=0)
    """Of random encoders."""
    device: Device = "auto"
    """Where encoders run."""


def coloured(encoder: Encoder, images: Sequence[RGB], side: int) -> list[RGB]:
    """Each image's patches as colours, enlarged without smoothing (side x side x 3).

    Raises:
        NoPatchTokens: the encoder has none.
    """
    _, tokens = encoder.tokens(images)
    made = []
    for one in joint_colours(list(tokens)):
        small = Image.fromarray(one.rgb).resize((side, side), Image.Resampling.NEAREST)
        made.append(np.asarray(small))
    return made


def figure(images: Sequence[RGB], columns: Sequence[tuple[str, Sequence[RGB]]], side: int) -> RGB:
    """Images on the left, the colours of each encoder beside them, names on top."""
    rows, across = len(images), 1 + len(columns)
    size = (across * (side + GAP) - GAP, HEAD + rows * (side + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    whole: list[tuple[str, Sequence[RGB]]] = [
        ("image", [resize(image, side, "bicubic") for image in images]), *columns
    ]  # fmt: skip
    for column, (name, pictures) in enumerate(whole):
        left = column * (side + GAP)
        pen.text((left + 2, 6), name[: side // 6], fill="black")
        for row, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (left, HEAD + row * (side + GAP)))
    return np.asarray(sheet)


def draw(config: PatchesConfig) -> NDArray[np.uint8]:
    """The figure, written where the config says."""
    images = [read_rgb(path) for path in config.images]
    columns = []
    for id in config.encoders:
        encoder = open_encoder(id, config.seed, config.device)
        columns.append((encoder.card.id, coloured(encoder, images, config.side)))
    made = figure(images, columns, config.side)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(made).save(config.out)
    return made


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    config = config_of(PatchesConfig, words, ("--encoders",))
    return status_of(lambda: draw(config))


if __name__ == "__main__":
    sys.exit(main())
