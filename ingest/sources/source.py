"""What is to be ingested: one source file, what is known of it, and how it becomes items."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from encoder.contract import RGB
from encoder.image import Frame, NotAnImage, decode, frame_of
from ingest.sandbox import messages
from ingest.sources.report import Failure
from ingest.sources.text import control_characters
from search.schemas.items import Box, Item, Kind, ScaleOrigin, item_id, source_id
from search.text import composed


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the source says of an item, beside its pixels; `None` where it says nothing."""

    label: str | None = None
    case: str | None = None
    patient: str | None = None
    site: str | None = None
    stain: str | None = None
    scanner: str | None = None
    acquired: date | None = None
    um_per_px: float | None = None
    um_per_px_origin: ScaleOrigin | None = None

    def over(self, other: Facts) -> Facts:
        """These facts, and those of `other` where these say nothing."""
        known = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        if "um_per_px" in known:  # a scale and its origin belong together
            known["um_per_px_origin"] = self.um_per_px_origin
        return replace(other, **known)


NOTHING = Facts()


class Source:
    """One file, read at most once."""

    def __init__(self, path: Path, dataset: str) -> None:
        self.path = path
        self.dataset = dataset
        self._image: RGB | None = None
        self.remark = ""
        """What a person should know of how it was decoded; empty until it was."""
        self._decoding = threading.Lock()

    @cached_property
    def content(self) -> bytes:
        """The bytes of the file; not for slides, which do not fit into memory."""
        with self.path.open("rb", buffering=0) as handle:
            return handle.read()

    @cached_property
    def id(self) -> str:
        """See `search.schemas.items.source_id`."""
        if "content" in self.__dict__:
            return source_id(self.content)
        with self.path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()[:32]

    @cached_property
    def frame(self) -> Frame:
        """Size and orientation, from the header alone.

        Raises:
            NotAnImage: no accepted format.
        """
        try:
            return frame_of(self.content)
        except NotAnImage:  # raised again, with the name, where it cannot be decoded either
            height, width = self.image.shape[:2]
            return Frame(width, height)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture; see `frame`."""
        return self.frame.size

    @property
    def image(self) -> RGB:
        """The decoded image; decoded once, whichever thread needs it first.

        Raises:
            ImageError: no image, damaged, or too many pixels.
        """
        with self._decoding:
            if self._image is None:
                if not self.content:
                    raise NotAnImage(f"{self.path.name} is empty")
                frame = self.__dict__.get("frame")  # where the plan has asked for it
                decoded = decode(self.content, name=self.path.name, frame=frame)
                self._image, self.remark = decoded.pixels, decoded.remark
            return self._image

    def forget(self) -> None:
        """Drop the decoded image; when it is needed again, it is decoded again."""
        with self._decoding:
            self._image = None


@dataclass(frozen=True)
class Planned:
    """One item that a source will give, known before its pixels are cut."""

    item: Item
    notes: Mapping[str, str] = field(default_factory=dict)
    """Remarks that go into the shard beside the item."""


@dataclass(frozen=True)
class Plan:
    """What a source will give."""

    planned: Sequence[Planned]
    failures: Sequence[Failure] = ()


class Reader(Protocol):
    """How one kind of source becomes items.

    Called from several threads at once, for different sources. `plan` should do without
    decoding where it can: items that are stored already are dropped between the two calls.
    """

    def plan(self, source: Source, facts: Facts) -> Plan:
        """Every item of the source, in a fixed order."""
        ...

    def cut(self, source: Source, planned: Sequence[Planned]) -> Iterator[RGB]:
        """The picture of each item, in the order of `planned`, which may be a part of the plan."""
        ...


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What is known of a source once all of it was read."""

    text: str
    """What became of it, in a sentence without its path."""
    warnings: Sequence[str]
    """What a person should look at although items were made."""
    failure: str | None
    """Why it gave no item; `None` if it gave one."""
    write: Callable[[Path, str], Path]
    """Writes its own report into a folder under a name, and returns the file."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What one answer of a child comes to."""

    planned: Sequence[Planned] = ()
    """Items."""
    images: Sequence[RGB] | NDArray[np.uint8] = ()
    """The picture of each; valid until the child's next answer."""
    remark: str = ""
    """What a person should know of how the source was decoded."""
    summary: Summary | None = None
    """Comes last, where the reader makes a report of each source."""


class ChildReader:
    """How one kind of source becomes items in an expendable child process.

    What can kill a process, or takes long to plan, is read this way. Items come as they are
    read; those that are stored already are dropped then.
    """

    def recipe(self, facts: Facts) -> str:
        """Changes with everything that changes what comes of the same bytes."""
        raise NotImplementedError

    def job(self, path: Path, facts: Facts) -> messages.Task:
        """The task of the child."""
        raise NotImplementedError

    def take(self, source: Source, facts: Facts, batch: messages.Batch) -> Taken:
        """What its answer means."""
        raise NotImplementedError

    def plan(self, source: Source, facts: Facts) -> Plan:
        """Not in this process."""
        raise TypeError(f"{type(self).__name__} reads in a child; run it with `ingest`")

    def cut(self, source: Source, planned: Sequence[Planned]) -> Iterator[RGB]:
        """Not in this process."""
        raise TypeError(f"{type(self).__name__} reads in a child; run it with `ingest`")


def recipe_of(*parts: Any) -> str:
    """A digest of parameters and facts."""
    plain = [_plain(asdict(part)) if isinstance(part, Facts) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) for name, value in facts.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One source file to ingest."""

    path: Path
    dataset: str
    reader: Reader
    facts: Facts = NOTHING


def child_reader(task: Task) -> ChildReader | None:
    """The reader of a task, if it reads in a child."""
    return task.reader if isinstance(task.reader, ChildReader) else None


@dataclass(frozen=True)
class Whole:
    """The whole file is one item."""

    kind: Kind = "cell"

    def plan(self, source: Source, facts: Facts) -> Plan:
        """One item without a box.

        Raises:
            ImageError: no image, as far as its header tells.
        """
        _ = source.size
        return Plan([Planned(make_item(source, facts, None, self.kind))])

    def cut(self, source: Source, planned: Sequence[Planned]) -> Iterator[RGB]:
        """The image itself."""
        for _ in planned:
            yield source.image


class BadFacts(ValueError):
    """Metadata that an item cannot carry."""


def make_item(source: Source, facts: Facts, bbox: Box | None, kind: Kind) -> Item:
    """The record of an item.

    Words are kept in one spelling (`composed`), so that one label in two spellings is one label.

    Raises:
        BadFacts: a fact of the wrong type, length or range, or with control characters; the
            message names the field.
    """
    known: dict[str, Any] = {
        name: _word(name, value) if isinstance(value, str) else value
        for name, value in vars(facts).items()
    }
    dataset = composed(source.dataset)
    try:
        return Item(
            id=item_id(dataset, source.id, bbox, kind),
            kind=kind,
            dataset=dataset,
            source=source.id,
            bbox=bbox,
            **known,
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise BadFacts(f"{name}: {first['msg']}") from error  # never the value: it may be a name


@lru_cache(maxsize=4096)
def _word(name: str, value: str) -> str:
    """A fact in its one spelling; the same few come with every file."""
    if found := control_characters(value):
        raise BadFacts(f"{name}: it holds control characters ({found})")
    return composed(value)
