"""Stored items and their pictures, read from a collection."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from search.errors import NoSuchItem
from search.index.contract import Stored
from search.library.collection import Collection
from search.library.sources import read_again
from search.query.context import Context


def stored(collection: Collection, id: str) -> Stored:
    """A stored item with its vector.

    Raises:
        NoSuchItem: it is not there.
    """
    found = collection.store.get([id])
    if not found:
        raise NoSuchItem(id, collection.name)
    return found[0]


def thumbnail(collection: Collection, id: str) -> bytes:
    """The picture of a stored item as the encoder saw it: JPEG, at most 160 pixels a side.

    Raises:
        NoSuchItem: it is not there.
    """
    content = collection.rows.thumbnail(id)
    if content is None:
        raise NoSuchItem(id, collection.name)
    return content


def picture(context: Context, id: str) -> tuple[bytes, bool]:
    """The picture of a stored item in full size where its file can still be read.

    Returns:
        The JPEG, and whether it was cut from the file (otherwise it is the thumbnail).

    Raises:
        NoSuchItem: it is not there.
    """
    collection = context.collection
    entry = collection.rows.entry(id)
    if entry is None:
        raise NoSuchItem(id, collection.name)
    pixels = read_again(context.read_pixels, entry.path, entry.item, entry.notes)
    if isinstance(pixels, str):
        return thumbnail(collection, id), False
    out = BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=92)
    return out.getvalue(), True
