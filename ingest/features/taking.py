"""Vectors of files into a collection, as items with pictures of their slides where those are."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from encoder.card import EncoderCard
from encoder.contract import RGB
from ingest.features.files import BadFeatures, Features, feature_files, read_features
from ingest.pipeline.sink import Sink
from ingest.sandbox.messages import SourceError, Task
from ingest.sandbox.pool import ReaderPool
from ingest.sources.source import Facts, Source, make_item
from search.library.shards import THUMBNAIL_PX, Entry, make_thumbnail
from search.schemas.items import Box

SHARD = 2000
"""Items of one shard."""
COLUMNS = ("label", "case", "patient", "site", "stain", "scanner")
"""Of a table, beside `slide`."""
GREY = np.full((16, 16, 3), 200, np.uint8)
"""In place of a picture where the slide is not at hand; being flat, it is compared with none."""


@dataclass(frozen=True, kw_only=True)
class FeaturesPlan:
    """What a person says of the files."""

    encoder: str
    """Whose vectors they are."""
    dataset: str
    slides: Path | None = None
    """Folder of the slides, named as the files are; for pictures."""
    side: int | None = None
    """Of a tile in level-0 pixels, where the files do not say."""
    facts: Mapping[str, Facts] = field(default_factory=dict)
    """By name of slide; see `read_table`."""


@dataclass
class Taken:
    """What was done."""

    files: int = 0
    stored: int = 0
    unchanged: int = 0
    without_picture: int = 0
    failures: list[str] = field(default_factory=list)
    """A sentence for each file that was left out."""


def card_of(encoder: str, dim: int) -> EncoderCard:
    """The card of vectors of an encoder: its own where this installation knows it, else one that
    says that they were computed elsewhere, and that only stored items can be searched with.

    Raises:
        BadFeatures: the encoder is known and makes vectors of another length.
    """
    from encoder.registry import known, load

    if encoder in known() or (Path(encoder) / "card.json").is_file():
        card = load(encoder).card
        if card.dim != dim:
            raise BadFeatures(
                f"vectors of encoder {encoder!r} have {card.dim} numbers, those of the files {dim}"
            )
        return card
    return EncoderCard(
        id=encoder,
        architecture=f"computed elsewhere: {encoder}",
        dim=dim,
        pooling="none",
        source="vectors that were read from files",
        notes="Pictures cannot be embedded with it here; search with stored items.",
    )


def read_table(path: Path) -> dict[str, Facts]:
    """Facts by slide, from a CSV with the column `slide` and any of `COLUMNS`.

    Raises:
        BadFeatures: no such file, no column `slide`, or a column that is none of these.
    """
    if not path.is_file():
        raise BadFeatures(f"there is no table {path}")
    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        names = tuple(reader.fieldnames or ())
        if "slide" not in names or set(names) - {"slide", *COLUMNS}:
            raise BadFeatures(
                f"{path} must have the column slide and may have {', '.join(COLUMNS)}; it has "
                f"{', '.join(names) or 'none'}"
            )
        return {
            row["slide"]: Facts(
                label=row.get("label") or None,
                case=row.get("case") or None,
                patient=row.get("patient") or None,
                site=row.get("site") or None,
                stain=row.get("stain") or None,
                scanner=row.get("scanner") or None,
            )
            for row in reader
        }


def take_features(paths: list[Path], plan: FeaturesPlan, sink: Sink) -> Taken:
    """Store the vectors of files; again, it changes nothing. A file that is wrong is left out.

    Args:
        paths: Files, or folders of them.
        plan: What is known of them.
        sink: The collection, of the encoder's card.
    """
    done = Taken()
    with ReaderPool(1) as pool:
        for path in (one for root in paths for one in feature_files(root)):
            try:
                features = read_features(path)
                _need_fit(features, plan, sink.card.dim)
                entries = list(_entries(features, plan, pool, done))
            except BadFeatures as error:
                done.failures.append(str(error))
                continue
            done.files += 1
            for at in range(0, len(entries), SHARD):
                part = entries[at : at + SHARD]
                known = sink.known([entry.item.id for entry in part])
                new = [entry for entry in part if entry.item.id not in known]
                if new:
                    sink.put(new)
                done.stored += len(new)
                done.unchanged += len(part) - len(new)
    return done


def _need_fit(features: Features, plan: FeaturesPlan, dim: int) -> None:
    if features.vectors.shape[1] != dim:
        raise BadFeatures(
            f"{features.path}: {dim} numbers a vector were expected, as in the collection, got "
            f"{features.vectors.shape[1]}"
        )
    if features.encoder is not None and features.encoder != plan.encoder:
        raise BadFeatures(
            f"{features.path}: its vectors are of encoder {features.encoder!r}, not "
            f"{plan.encoder!r}; vectors of two encoders do not go into one collection"
        )
    if not np.isfinite(features.vectors).all() or not features.vectors.any(axis=1).all():
        raise BadFeatures(f"{features.path}: a vector is zero, infinite or not a number")
    if features.coords is not None and (features.side or plan.side) is None:
        raise BadFeatures(
            f"{features.path}: nothing says how large its tiles are; give the side in level-0 "
            "pixels (--tile-px)"
        )


def _entries(
    features: Features, plan: FeaturesPlan, pool: ReaderPool, done: Taken
) -> Iterator[Entry]:
    slide = _slide(features, plan)
    source = Source(slide or features.path, plan.dataset)
    facts = plan.facts.get(features.name, Facts())
    notes = {"vectors": f"of {features.path.name}, encoder {plan.encoder}"}
    path = str((slide or features.path).resolve())
    if features.coords is None:
        item = make_item(source, facts, None, "field")
        done.without_picture += 1
        yield Entry(item, features.vectors[0], make_thumbnail(GREY), path, notes)
        return
    side = features.side or plan.side or 0
    boxes = [Box(x=int(x), y=int(y), w=side, h=side) for x, y in features.coords]
    pictures = _pictures(slide, boxes, pool)
    for box, vector in zip(boxes, features.vectors, strict=True):
        picture = next(pictures, None)
        done.without_picture += picture is None
        thumbnail = make_thumbnail(GREY if picture is None else picture)
        yield Entry(make_item(source, facts, box, "tile"), vector, thumbnail, path, notes)


def _slide(features: Features, plan: FeaturesPlan) -> Path | None:
    """The slide of a file: where it says, or of its name in the folder of slides."""
    if plan.slides is not None:
        for path in sorted(plan.slides.glob(f"{features.name}.*")):
            if path.suffix.lower() not in (".h5", ".json", ".csv", ".xml"):
                return path
    return features.slide if features.slide is not None and features.slide.is_file() else None


def _pictures(slide: Path | None, boxes: list[Box], pool: ReaderPool) -> Iterator[RGB]:
    """A picture of each box, while the slide can be read."""
    if slide is None:
        return
    places: list[Any] = [[box.x, box.y, box.w, box.h] for box in boxes]
    task = Task(
        reader="ingest.features.pictures:pictures",
        source=str(slide),
        args={"boxes": places, "side": THUMBNAIL_PX},
    )
    try:
        for batch in pool.read(task):
            yield from (np.array(image) for image in batch.images)
    except SourceError:
        return
