"""Uploaded labelled sets: a ZIP of pictures, or a shard; read once, never kept."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from io import BytesIO, StringIO
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from pydantic import ValidationError

from encoder.contract import Encoder
from encoder.image import ImageError
from search.errors import BadQuestion
from search.evaluation.labelled import Cells, table
from search.library.collection import Collection
from search.library.shards import Shard, make_thumbnail
from search.library.sources import seen
from search.library.uploads import check_shard
from search.neighbours.duplicates import PictureHash, hashes_of, perceptual_hash
from search.query.pictures import Pictures
from search.schemas.evaluations import SetFacts
from search.schemas.items import Item, item_id, source_id
from search.text import composed, is_missing

MANIFEST = "manifest.csv"
FACTS = ("label", "patient", "case", "site", "source", "acquired", "um_per_px")
"""Columns of a manifest beside `path`; `path` and `label` are needed."""
PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif")
MOST_FILES = 100_000
INFLATED = 20
"""A ZIP may hold so many times its own size; pictures do not compress."""


class BadSet(BadQuestion):
    """An uploaded set that cannot be read, and why."""


def kind_of(content: bytes) -> SetFacts:
    """What an uploaded set is, by its first bytes.

    Raises:
        BadSet: neither a ZIP nor a Parquet file.
    """
    digest = sha256(content).hexdigest()[:16]
    if content[:4] == b"PAR1":
        return SetFacts(kind="shard", items=0, digest=digest)
    if content[:4] == b"PK\x03\x04":
        return SetFacts(kind="zip", items=0, digest=digest)
    raise BadSet(
        "the set is neither a ZIP of pictures nor a shard (Parquet); send a ZIP whose folders "
        f"are labels, or with a {MANIFEST}"
    )


def read_set(
    content: bytes,
    collection: Collection,
    encoder: Callable[[], Encoder],
    decoder: Pictures,
    max_file: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Cells:
    """The labelled items of an uploaded set, with vectors of a collection's encoder.

    Args:
        content: A ZIP or a shard.
        collection: Whose vectors they are to have.
        encoder: Gives its encoder, for pictures.
        decoder: Decodes the pictures.
        max_file: Bytes of one file of a ZIP.
        progress: Callback with how many pictures were embedded; may raise to stop.

    Raises:
        BadSet: damaged, too large, without labels, or with a picture that cannot be read.
        WrongEncoder: a shard of another encoder.
    """
    hashes: dict[str, PictureHash | None]
    if kind_of(content).kind == "shard":
        check_shard(content, collection.base.to_json())
        shard = Shard(content, collection.base, collection.adaptation)
        if shard.tombstone:
            raise BadSet("the uploaded shard is a tombstone; it holds no items")
        items = shard.items()
        rows = list(zip(items, shard.vectors(), strict=True))
        found = hashes_of(shard.thumbnails())
        hashes = {item.id: hash for item, hash in zip(items, found, strict=True)}
    else:
        rows, hashes = [], {}
        items = []
        network = encoder()
        try:
            for pictures in decoder.batches(_pictures(content, max_file, items)):
                batch = items[len(rows) : len(rows) + len(pictures)]
                for item, picture in zip(batch, pictures, strict=True):
                    hashes[item.id] = perceptual_hash(make_thumbnail(picture))
                shown = [seen(network.card, *one) for one in zip(pictures, batch, strict=True)]
                rows += zip(batch, network.embed(shown), strict=True)
                progress(len(rows))
        except ImageError as error:
            raise BadSet(str(error)) from error
    once = {item.id: (item, np.asarray(vector)) for item, vector in reversed(rows)}
    return table(once.values(), collection.card.dim, own=False, hashes=hashes)


def _pictures(content: bytes, max_file: int, items: list[Item]) -> Iterator[tuple[str, bytes]]:
    """Pictures with what errors call them: names of files may be names of people. Their items are
    appended to `items`."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            files = _files(archive, len(content), max_file)
            facts = _facts(archive, files)
            for at, (name, row) in enumerate(facts.items(), 1):
                called = f"picture {at} of the set (of label {row.get('label', '')[:60]!r})"
                data = archive.read(files[name])
                items.append(_item(row, data, called))
                yield called, data
    except BadSet:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        raise BadSet(f"the ZIP is damaged or encrypted: {error}") from error


def _item(row: Mapping[str, str], data: bytes, called: str) -> Item:
    source = source_id(data)
    facts: dict[str, Any] = {
        name: None if is_missing(value) else composed(value)
        for name in FACTS
        if (value := row.get(name))
    }
    if "label" in facts and facts["label"] is None:
        raise BadSet(
            f"{called} has the word {row['label']!r} as its label, which stands for none; "
            "leave the picture out, or give its label"
        )
    facts["source"] = facts.get("source") or source
    try:
        return Item(id=item_id("uploaded", source), dataset="uploaded", **facts)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadSet(f"{called}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _files(archive: zipfile.ZipFile, size: int, max_file: int) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by path, hidden ones left out."""
    files = {
        composed(info.filename): info
        for info in archive.infolist()
        if not info.is_dir()
        and not any(
            part.startswith((".", "__MACOSX")) for part in PurePosixPath(info.filename).parts
        )
    }
    whole = sum(info.file_size for info in files.values())
    if len(files) > MOST_FILES or whole > INFLATED * size:
        raise BadSet(
            f"the ZIP holds {len(files)} files of {whole >> 20} MiB; at most {MOST_FILES} files "
            f"and {INFLATED} times its own size are read"
        )
    for at, info in enumerate(files.values(), 1):
        if info.file_size > max_file:
            raise BadSet(f"file {at} of the ZIP has {info.file_size} bytes, at most {max_file}")
    return files


def _facts(
    archive: zipfile.ZipFile, files: Mapping[str, zipfile.ZipInfo]
) -> dict[str, dict[str, str]]:
    """The facts of each picture, by path: from the manifest, else its folder is its label."""
    manifests = [name for name in files if PurePosixPath(name).name == MANIFEST]
    if manifests:
        path = min(manifests, key=lambda name: (name.count("/"), name))
        try:
            text = archive.read(files[path]).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadSet(
                f"{MANIFEST} is no UTF-8 (byte {error.start}); save it as CSV UTF-8, so that no "
                "letter of a label is lost"
            ) from error
        return _reported(list(csv.DictReader(StringIO(text))), PurePosixPath(path).parent, files)
    found = {
        name: {"label": PurePosixPath(name).parent.name}
        for name in sorted(files)
        if PurePosixPath(name).suffix.lower() in PICTURES
    }
    if not found or not all(row["label"] for row in found.values()):
        raise BadSet(
            f"the ZIP has {len(found)} pictures, not all of them in a folder that is their label; "
            f"put them into folders, or add a {MANIFEST} with path and label"
        )
    return found


def _reported(
    lines: list[dict[str, Any]], folder: PurePosixPath, files: Mapping[str, zipfile.ZipInfo]
) -> dict[str, dict[str, str]]:
    if not lines or not {"path", "label"} <= set(lines[0]):
        raise BadSet(f"{MANIFEST} needs the columns path and label, and at least one row")
    found = {}
    for at, line in enumerate(lines, 2):
        name = composed(str(folder / str(line["path"])))
        if name not in files:
            raise BadSet(f"{MANIFEST}, line {at}: no such file in the ZIP")
        row = {key: str(line.get(key) or "").strip() for key in FACTS}
        if not row["label"]:
            raise BadSet(f"{MANIFEST}, line {at}: the label is empty")
        found[name] = row
    return found
