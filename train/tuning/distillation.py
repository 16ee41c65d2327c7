r"""A large encoder distilled into a small one, which learns to predict its vectors.

    python -m train.tuning.distillation --teacher dinobloom-l --data packed --out runs/s \
        --start random --size ti

The teacher embeds every image once, as it is; the student predicts that from augmented views (the
trainer's `guide`), so it learns the teacher's vector and to look past the augmentation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from encoder.contract import Encoder
from encoder.image import ImageError, read_rgb
from search.disk.atomic import write_durably
from train.config import TrainConfig
from train.data.images import open_source
from train.data.source import DataError, Source

CHUNK = 256
"""Images embedded at once."""
GUIDE = "teacher.npy"
"""The teacher's vectors, in the folder of the run."""


class DistilConfig(TrainConfig):
    """Distil an encoder into a smaller one; every other setting is one of `train run`."""

    teacher: str
    """The large encoder: a name, a folder or a timm source that the registry loads."""
    warm: bool = False
    """Keep the teacher's vectors that a run before left, without looking at the images again."""

    @model_validator(mode="before")
    @classmethod
    def _taught(cls, given: Any) -> Any:
        """The teacher's vectors are what is learned from, unless other losses are named too."""
        if not isinstance(given, dict) or "out" not in given:
            return given
        alone = dict.fromkeys(("dino_weight", "ibot_weight", "koleo_weight"), 0.0)
        return {**alone, "guide": Path(given["out"]) / GUIDE, **given}


def teacher_vectors(
    encoder: Encoder, data: Sequence[Path], progress: Callable[[int, int], None]
) -> NDArray[np.float32]:
    """The teacher's vector of every image of the sources, in their order, centred (n x dim).

    An image that cannot be read has the mean, from which nothing is learned.

    Raises:
        DataError: a source that is not there.
    """
    sources = [open_source(path) for path in data]
    total = sum(len(source) for source in sources)
    rows = np.full((total, encoder.card.dim), np.nan, np.float32)
    for numbers, images in _chunks(sources):
        if images:
            rows[numbers] = encoder.embed(images)
        progress(int(numbers[-1]) + 1 if numbers else 0, total)
    if np.isnan(rows).all():
        raise DataError(f"no image below {', '.join(map(str, data))} can be read")
    rows -= np.nanmean(rows, axis=0)
    return np.nan_to_num(rows)


def _chunks(sources: Sequence[Source]) -> Iterator[tuple[list[int], list[NDArray[np.uint8]]]]:
    numbers: list[int] = []
    images: list[NDArray[np.uint8]] = []
    first = 0
    for source in sources:
        for at in range(len(source)):
            try:
                images.append(read_rgb(source.content(at)))
                numbers.append(first + at)
            except (ImageError, OSError):
                continue
            if len(images) == CHUNK:
                yield numbers, images
                numbers, images = [], []
        first += len(source)
    if images:
        yield numbers, images


def distil(config: DistilConfig, say: Callable[[str], None]) -> None:
    """Embed with the teacher, unless a run before did, and train the student.

    Raises:
        EncoderError, DataError: as of `encoder.registry.load` and `train.dino.run.prepare`.
    """
    from io import BytesIO

    from encoder.registry import load
    from train.dino.loop import train

    guide = config.guide or config.out / GUIDE
    if not (config.warm and guide.is_file()):
        encoder = load(config.teacher)
        rows = teacher_vectors(
            encoder, config.data, lambda done, total: say(f"teacher: {done} of {total}")
        )
        config.out.mkdir(parents=True, exist_ok=True)
        held = BytesIO()
        np.save(held, rows)
        write_durably(guide, held.getvalue())
    facts = config.model_dump(exclude={"teacher", "warm"})
    outcome = train(TrainConfig.model_validate(facts), say)
    if outcome.exported:
        say(f"exported to {config.out}")
    if outcome.refusal:
        sys.exit(3)


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    from train.evaluation.command import config_of, status_of

    config = config_of(DistilConfig, words, ("--data",))
    return status_of(lambda: distil(config, lambda text: print(text, flush=True)))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
