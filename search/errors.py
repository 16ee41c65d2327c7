"""Errors of the search service, each a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Sequence


class BadQuestion(ValueError):
    """A question that cannot be answered as it was put."""


class NoSuchItem(LookupError):
    """An item that is not in the collection."""

    def __init__(self, id: str, collection: str) -> None:
        super().__init__(
            f"no item {id} in collection {collection!r}; it may have been deleted or re-indexed"
        )


class NoSuchCase(NoSuchItem):
    """A case, slide or patient of which the collection has no item."""

    def __init__(self, by: str, value: str, collection: str) -> None:
        LookupError.__init__(self, f"no item of {by} {value!r} in collection {collection!r}")


class NoCalibration(NoSuchItem):
    """A collection that was not calibrated."""

    def __init__(self, collection: str) -> None:
        LookupError.__init__(
            self,
            f"collection {collection!r} has no calibration; "
            f"POST /v1/collections/{collection}/calibration fits one",
        )


class StoreError(RuntimeError):
    """A store that cannot do what is wanted, and what to do about it."""


class WrongEncoder(StoreError):
    """Vectors of one encoder met a collection of another."""

    def __init__(self, collection: str, stored: str, came: str) -> None:
        super().__init__(
            f"collection {collection!r} holds vectors of encoder {stored}, not of {came}; "
            "vectors of two encoders cannot be compared. "
            "Use the first encoder, or ingest into a new collection"
        )


class OtherEncoder(WrongEncoder):
    """The encoder that is installed is not the one that a collection was made with."""

    def __init__(self, collection: str, stored: str, here: str) -> None:
        StoreError.__init__(
            self,
            f"a new picture cannot be compared with the cells of collection {collection!r}: they "
            f"were read by encoder {stored}, but {here} is installed here. Searches by stored "
            "cells still work; for new pictures the operator re-indexes the collection "
            "(`hemaseek reindex`) or installs the first encoder again",
        )


class NoSuchCollection(StoreError):
    """A collection that does not exist."""

    def __init__(self, collection: str, known: Sequence[str] = ()) -> None:
        have = f"There are: {', '.join(known)}" if known else "There is none yet"
        super().__init__(f"no collection {collection!r}. {have}; `hemaseek ingest PATH` makes one")


class CollectionExists(StoreError):
    """A collection that was to be made is already there."""


class StoreBusy(StoreError):
    """Another process has the store open."""


class StoreDown(StoreError):
    """The server behind the store does not answer."""


class BadVector(ValueError):
    """A vector that cannot be stored or searched with."""


class BadItem(ValueError):
    """An item that cannot be stored."""


class CannotOpen(StoreError):
    """A collection whose files are damaged: it is set aside, and the others answer."""

    def __init__(self, collection: str) -> None:
        super().__init__(
            f"collection {collection!r} cannot be opened and is set aside; `hemaseek doctor` tells "
            "the operator why. Restore it from a snapshot"
        )


class Busy(RuntimeError):
    """Other calls have the memory that this one needs."""

    def __init__(self) -> None:
        super().__init__(
            "the service is busy with other uploads; send this one again as Retry-After says, or "
            "send fewer or smaller pictures at once"
        )
