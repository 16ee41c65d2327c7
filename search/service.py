"""What the service does, without HTTP: questions in, answers out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image

from encoder.card import EncoderCard
from encoder.encoder import RGB, Encoder
from encoder.image import ImageError, read_rgb
from encoder.registry import load
from search.knn import Weighting, vote
from search.library import Collection, Library, embedded, on_server
from search.records import (
    About,
    Answer,
    Exclusion,
    Filter,
    Hit,
    Item,
    Question,
    Vote,
    VoteAnswer,
    source_id,
)
from search.settings import Settings
from search.shards import write_durably
from search.store import NoSuchCollection, StoreError, Vectors, WrongEncoder, checked_vectors

CLEAR_MARGIN = 0.2
"""A vote whose first two labels are closer than this is not shown as one label."""
FEW_VOTERS = 3
"""Fewer labelled neighbours than this say nothing."""
SMALL_PX = 24
"""A query image with a side below this has too little in it to be trusted."""


class BadQuestion(ValueError):
    """A question that cannot be answered as it was put."""


class NoSuchItem(LookupError):
    """An item that is not in the collection."""

    def __init__(self, id: str, collection: str) -> None:
        super().__init__(
            f"no item {id} in collection {collection!r}; it may have been deleted or re-indexed"
        )


class Service:
    """A library that is held, and the encoders that its collections need.

    Safe to call from many threads.
    """

    def __init__(
        self,
        library: Library,
        settings: Settings,
        load_encoder: Callable[[str], Encoder] | None = None,
    ) -> None:
        self.settings = settings
        self.library = library
        self._load = load_encoder or (lambda id: load(id, device=settings.device))
        self._encoders: dict[str, Encoder] = {}
        self._collections: dict[str, Collection] = {}
        self._opening = threading.RLock()
        self._counts: OrderedDict[str, int] = OrderedDict()
        for name in library.names():
            self.collection(name)

    @classmethod
    def open(cls, settings: Settings) -> Service:
        """Open the library that the settings name, and hold all of its collections.

        Raises:
            StoreBusy: another process holds one of them.
        """
        if settings.qdrant_url:
            key = settings.qdrant_api_key
            make = on_server(settings.qdrant_url, key.get_secret_value() if key else None)
        else:
            make = embedded
        return cls(Library.open(settings.library, make), settings)

    def close(self) -> None:
        """Release every collection."""
        with self._opening:
            for collection in self._collections.values():
                collection.close()
            self._collections.clear()

    def collection(self, name: str | None = None) -> Collection:
        """A collection by name, or the default one.

        Raises:
            NoSuchCollection: it does not exist.
        """
        wanted = name or self.settings.collection
        with self._opening:
            held = self._collections.get(wanted)
            if held is None:
                names = self.library.names()
                if name is None and wanted not in names and len(names) == 1:
                    return self.collection(names[0])
                held = self._collections[wanted] = self.library.collection(wanted)
            return held

    def create(self, name: str, card: EncoderCard, encoder: str = "") -> Collection:
        """A collection for an encoder: made if it is new, held if it is there.

        `encoder` is what loads it, where that is not the card's id.

        Raises:
            WrongEncoder: it belongs to another encoder.
        """
        with self._opening:
            held = self._collections.get(name)
            if held is None:
                held = self._collections[name] = self.library.create(name, card, encoder)
            elif held.card.fingerprint != card.fingerprint:
                raise WrongEncoder(name, _called(held.card), _called(card))
            return held

    def names(self) -> list[str]:
        """The collections."""
        return self.library.names()

    def count(self, collection: Collection) -> int:
        """How many items a collection holds; remembered until something is written."""
        held = self._counts.get(collection.name)
        if held is None:
            held = self._counts[collection.name] = collection.store.count()
        return held

    def written(self, collection: Collection) -> None:
        """Forget what was remembered of a collection, after a write."""
        self._counts.pop(collection.name, None)

    def encoder(self, collection: Collection) -> Encoder:
        """The encoder of a collection, loaded when it is first needed.

        Raises:
            WrongEncoder: the one installed here under that name makes other vectors.
        """
        card = collection.card
        with self._opening:
            held = self._encoders.get(card.fingerprint)
            if held is None:
                held = self._load(self.library.reference(collection.name))
                if held.card.fingerprint != card.fingerprint:
                    raise WrongEncoder("of this query", _called(card), _called(held.card))
                self._encoders[card.fingerprint] = held
            return held

    def search(self, question: Question, image: bytes | None = None) -> Answer:
        """The neighbours of an image, a stored item or a vector.

        Raises:
            BadQuestion: not exactly one of image, item and vector; or a vector without the
                fingerprint of its encoder.
            NoSuchCollection, NoSuchItem, WrongEncoder, ImageError, BadVector: as they say.
        """
        collection = self.collection(question.collection)
        card = collection.card
        if question.fingerprint is not None and question.fingerprint != card.fingerprint:
            raise WrongEncoder(collection.name, _called(card), question.fingerprint)
        started = perf_counter()
        vector, about, id, warnings = self._query(collection, question, image)
        embedded_at = perf_counter()
        hits = collection.store.nearest(
            vector,
            question.k,
            None if question.where.empty else question.where,
            _kin(question, about, id),
            exact=question.exact,
        )
        searched_at = perf_counter()
        exclusion, note = patient_exclusion(question, about, hits)
        return Answer(
            hits=tuple(hits),
            collection=collection.name,
            items=self.count(collection),
            encoder=card.id,
            fingerprint=card.fingerprint,
            k=question.k,
            exact=question.exact,
            where=question.where,
            patients=_different(hits, "patient"),
            sources=_different(hits, "source"),
            sites=_different(hits, "site"),
            patient_exclusion=exclusion,
            warnings=tuple(warnings + ([note] if note else []) + _shortage(question, hits)),
            seconds={"embed": embedded_at - started, "search": searched_at - embedded_at},
        )

    def vote(
        self,
        question: Question,
        image: bytes | None = None,
        weighting: Weighting = "similarity",
        temperature: float = 0.07,
    ) -> VoteAnswer:
        """The label that the neighbours of a query carry, and whether to show it."""
        answer = self.search(question, image)
        found = vote(answer.hits, weighting, temperature)
        sure, reason = judge(found)
        return VoteAnswer(vote=found, sure=sure, reason=reason, answer=answer)

    def item(self, id: str, collection: str | None = None) -> Item:
        """A stored item.

        Raises:
            NoSuchItem: it is not there.
        """
        held = self.collection(collection)
        found = held.store.get([id])
        if not found:
            raise NoSuchItem(id, held.name)
        return found[0].item

    def thumbnail(self, id: str, collection: str | None = None) -> bytes:
        """The JPEG of a stored item, as the encoder saw it, at most 160 pixels a side."""
        held = self.collection(collection)
        content = held.thumbnail(id)
        if content is None:
            raise NoSuchItem(id, held.name)
        return content

    def picture(self, id: str, collection: str | None = None) -> tuple[bytes, bool]:
        """The JPEG of a stored item cut from its source at full size, where that is still there.

        Returns:
            The JPEG, and whether it is from the source (else it is the thumbnail).
        """
        held = self.collection(collection)
        item = self.item(id, held.name)
        path = held.path(id)
        content = None if path is None else cut(Path(path), item)
        return (content, True) if content else (self.thumbnail(id, held.name), False)

    def _query(
        self, collection: Collection, question: Question, image: bytes | None
    ) -> tuple[Vectors, About, str | None, list[str]]:
        """Vector, what is known of the query, its item id, and warnings."""
        given = [image is not None, question.item is not None, question.vector is not None]
        if sum(given) != 1:
            raise BadQuestion(
                f"a question needs exactly one of image, item and vector, got {sum(given)}"
            )
        if question.item is not None:
            found = collection.store.get([question.item])
            if not found:
                raise NoSuchItem(question.item, collection.name)
            item = found[0].item
            about = About(source=item.source, case=item.case, patient=item.patient)
            return found[0].vector, about, item.id, []
        if question.vector is not None:
            if question.fingerprint is None:
                raise BadQuestion(
                    "a vector needs the fingerprint of the encoder that made it, so that vectors "
                    f"of two encoders never meet; this one's is {collection.card.fingerprint}"
                )
            row = np.asarray([question.vector], np.float64)
            return checked_vectors(row, collection.card.dim, 1)[0], question.about, None, []
        if image is None:  # unreachable: one of the three is given
            raise BadQuestion("no image")
        pixels = read_rgb(
            image,
            name="the uploaded image",
            max_pixels=int(self.settings.max_megapixels * 1e6),
        )
        about = question.about.model_copy(update={"source": source_id(image)})
        vector = self.encoder(collection).embed([pixels])[0]
        return vector, about, None, image_warnings(pixels)


def judge(found: Vote) -> tuple[bool, str]:
    """Whether a vote is clear enough to be shown as one label, and why."""
    if found.label is None:
        return False, "Not sure: no neighbour carries a label."
    if found.voters < FEW_VOTERS:
        return False, f"Not sure: only {found.voters} labelled neighbours."
    if found.margin < CLEAR_MARGIN:
        first, second = list(found.shares)[:2]
        return False, f"Not sure: {first} and {second} are close ({found.margin:.0%} apart)."
    share = found.shares[found.label]
    return True, f"{share:.0%} of the weight of {found.voters} labelled neighbours."


def patient_exclusion(
    question: Question, about: About, hits: list[Hit]
) -> tuple[Exclusion, str | None]:
    """Whether the query's own patient was kept out of the hits, and a warning if not."""
    if "patient" not in question.exclude:
        return "off", "The query's own patient was not left out, as asked."
    if about.patient is None:
        return "impossible", (
            "The query's patient is unknown: neighbours may be of the same patient."
        )
    unknown = sum(hit.item.patient is None for hit in hits)
    if hits and unknown == len(hits):
        return "impossible", "The library has no patient ids for these neighbours."
    if unknown:
        return "partial", f"{unknown} of {len(hits)} neighbours have no patient id."
    return "applied", None


def image_warnings(pixels: RGB) -> list[str]:
    """What about a query image makes its answer less trustworthy, in words."""
    height, width = pixels.shape[:2]
    found = []
    if min(height, width) < SMALL_PX:
        found.append(f"The image is only {width} x {height} pixels: too small to be trusted.")
    elif max(height, width) > 3 * min(height, width):
        found.append(f"The image is {width} x {height} pixels; it is squashed to a square.")
    if float(pixels.std()) < 4.0:
        found.append("The image is nearly blank.")
    return found


def cut(path: Path, item: Item) -> bytes | None:
    """An item's own pixels as JPEG; `None` if the file is gone, changed or unreadable."""
    try:
        content = path.read_bytes()
        if source_id(content) != item.source:
            return None
        pixels = read_rgb(content)
    except (OSError, ImageError):
        return None
    picture = Image.fromarray(pixels)
    if item.bbox is not None:
        box = item.bbox
        canvas = Image.new("RGB", (box.w, box.h), (255, 255, 255))
        canvas.paste(picture, (-box.x, -box.y))
        picture = canvas
    out = BytesIO()
    picture.save(out, "JPEG", quality=92)
    return out.getvalue()


def announce(settings: Settings, pid: int) -> Path:
    """Say in the library who serves it, so that an ingest can go through that service."""
    path = settings.library / "service.json"
    write_durably(path, f'{{"url": "{settings.url}", "pid": {pid}}}\n'.encode())
    return path


def _kin(question: Question, about: About, id: str | None) -> Filter | None:
    """The query's own kin and whatever else is to be left out, as one filter."""
    extra = question.not_these
    own: dict[str, str | None] = {
        "ids": id if "item" in question.exclude else None,
        **{name: getattr(about, name) for name in question.exclude if name != "item"},
    }
    changes = {
        name: (*getattr(extra, name), value) for name, value in own.items() if value is not None
    }
    kin = extra.model_copy(update=changes)
    return None if kin.empty else kin


def _shortage(question: Question, hits: list[Hit]) -> list[str]:
    if len(hits) == question.k:
        return []
    return [f"Only {len(hits)} of the {question.k} neighbours asked for exist."]


def _different(hits: list[Hit], name: str) -> int:
    return len({value for hit in hits if (value := getattr(hit.item, name)) is not None})


def _called(card: EncoderCard) -> str:
    return f"{card.id} ({card.fingerprint})"


__all__ = ["BadQuestion", "NoSuchCollection", "NoSuchItem", "Service", "StoreError", "announce"]
