"""An uploaded shard is checked whole by a process of its own, before the service reads it.

A Parquet file of some kilobytes can unfold to gigabytes, and a damaged one can end the process
that reads it. The child that looks first has bounds on memory and time, so what it has passed is
safe to read again; every row is checked by the same rules as an item that is posted as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from search.errors import StoreError, WrongEncoder

if TYPE_CHECKING:
    from search.library.shards import Shard

MEMORY_BYTES = 2 << 30
"""Address space of the child beyond the shard itself; its libraries take a third of it."""
SECONDS = 120
"""Time of the child, for the largest shards too."""
MOST_ROWS = 200_000
LONGEST_PATH = 4096
LARGEST_THUMBNAIL = 1 << 20
LONGEST_NOTES = 20_000
REFUSED, OTHER_ENCODER = 3, 4
"""Exit statuses of the child."""
CHUNK = 256
"""Rows that are unfolded at once."""


def check_shard(content: bytes, card: str) -> None:
    """Check the bytes of a shard in a child process.

    Args:
        content: What was uploaded.
        card: The collection's encoder card, as JSON.

    Raises:
        ShardError: damaged, too large when unfolded, or with a row that is no item; says which.
    """
    from search.library.shards import ShardError

    package = str(Path(__file__).parents[2])
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", "search.library.uploads", str(len(content))],
            input=card.encode() + b"\0" + content,
            capture_output=True,
            timeout=SECONDS,
            env={**os.environ, **threads, "PYTHONPATH": package, "MALLOC_ARENA_MAX": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ShardError(
            f"the uploaded shard could not be read within {SECONDS} s; send it in parts"
        ) from None
    reason = done.stdout.decode(errors="replace")[:1000]
    if done.returncode == OTHER_ENCODER:
        raise WrongEncoder("the uploaded shard", *json.loads(done.stdout))
    if done.returncode == REFUSED:
        raise ShardError(reason)
    if done.returncode != 0:
        raise ShardError(
            "the uploaded shard is damaged, or unfolds to more than "
            f"{MEMORY_BYTES >> 30} GiB; send it in parts"
        )


def _check(content: bytes, card: str) -> None:
    """Read every row; raises `ShardError`, `CardError`, `StoreError` with what is wrong."""
    from encoder.card import EncoderCard
    from search.library.shards import Shard, ShardError, schema

    shard = Shard(content, EncoderCard.from_json(card))
    if shard.tombstone:
        return
    if shard.rows > MOST_ROWS:
        raise ShardError(
            f"a shard has at most {MOST_ROWS} rows, got {shard.rows}; send it in parts"
        )
    wanted, came = schema(shard.card), shard.columns
    if not came.equals(wanted):
        raise ShardError(f"the columns of the uploaded shard are not those of a shard: {came}")
    _check_rows(shard, content)


def _check_rows(shard: Shard, content: bytes) -> None:
    import pyarrow.parquet as pq
    from PIL import Image

    from search.index.contract import checked_vectors
    from search.library.shards import ShardError, item_of, payload_digest, vectors_of

    texts = [name for name in shard.columns.names if name != "vector"]
    row = 0
    for batch in pq.ParquetFile(BytesIO(content)).iter_batches(CHUNK):
        if batch.nbytes > CHUNK * (LARGEST_THUMBNAIL + 8 * shard.card.dim + LONGEST_NOTES):
            raise ShardError("the uploaded shard has rows that are too large")
        checked_vectors(vectors_of(batch["vector"], shard.card.dim), shard.card.dim)
        for facts in batch.select(texts).to_pylist():
            where = f"row {row} of the uploaded shard"
            try:
                item = item_of(facts)
            except (ValueError, TypeError) as error:
                raise ShardError(f"{where} is no item: {str(error)[:300]}") from error
            if facts["digest"] != payload_digest(item):
                raise ShardError(f"{where} has a digest that does not belong to its facts")
            _check_beside(facts, where)
            with Image.open(BytesIO(facts["thumbnail"]), formats=("JPEG",)) as picture:
                if max(picture.size) > 1024:
                    raise ShardError(f"{where} has a thumbnail of {picture.size} pixels")
            row += 1


def _check_beside(facts: dict[str, object], where: str) -> None:
    """Check the bounds of what stands beside the item: path, notes and thumbnail."""
    from search.library.shards import ShardError

    path, notes, thumbnail = facts["path"], facts["notes"], facts["thumbnail"]
    if path is not None and (len(str(path)) > LONGEST_PATH or "\0" in str(path)):
        raise ShardError(f"{where} has a path that is none")
    if notes is not None:
        found = json.loads(str(notes)) if len(str(notes)) <= LONGEST_NOTES else None
        if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
            raise ShardError(f"{where} has notes that are no short JSON object of texts")
    if not isinstance(thumbnail, bytes) or len(thumbnail) > LARGEST_THUMBNAIL:
        raise ShardError(f"{where} has no thumbnail of at most {LARGEST_THUMBNAIL >> 20} MiB")


def _main() -> int:
    """Check what comes on standard input; the reason of a refusal goes to standard output."""
    from encoder.card import EncoderCard
    from search.library.shards import Shard

    room = MEMORY_BYTES + 3 * int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    card, _, content = sys.stdin.buffer.read().partition(b"\0")
    try:
        _check(content, card.decode())
    except WrongEncoder:
        titles = EncoderCard.from_json(card.decode()).title, Shard(content).card.title
        sys.stdout.write(json.dumps(titles))
        return OTHER_ENCODER
    except (ValueError, StoreError) as error:
        sys.stdout.write(str(error))
        return REFUSED
    except Exception as error:
        sys.stdout.write(f"the uploaded shard is damaged: {type(error).__name__}")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main())
