"""Reviewers' labels of items: a log beside the versions that is only ever added to."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import combinations
from pathlib import Path

from search.disk.lines import append, whole_lines
from search.errors import StoreError
from search.library.versions import Versions, now
from search.schemas.answers import ReviewedLabel
from search.schemas.items import Item
from search.schemas.reviews import ReviewerPair, standing

FILE = "reviews.jsonl"
"""In the folder of a collection: versions come and go, a reviewer's label stays."""


class ReviewsDamaged(StoreError):
    """The log of reviews cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Review:
    """The label that one reviewer gave to one item."""

    item: str
    """Its id."""
    label: str | None
    """What the reviewer calls it; `None` withdraws their earlier label."""
    source_label: str | None
    """The label of the source at that time: never changed by a review."""
    caller: str
    """Who was let in: the id of a key, or of a person; `open` where there are no keys."""
    reviewer: str | None
    """The name that the reviewer gave; a claim."""
    at: str
    """When, in UTC."""
    note: str | None = None

    @property
    def by(self) -> tuple[str, str | None]:
        """Whose label it is."""
        return (self.caller, self.reviewer)


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """All reviews of one item."""

    item: str
    history: tuple[Review, ...]
    """Oldest first."""

    @property
    def standing(self) -> tuple[Review, ...]:
        """The last label of each reviewer, where it was not withdrawn; oldest first."""
        return standing(self.history)

    @property
    def label(self) -> str | None:
        """The last label that stands; `None` where all were withdrawn."""
        standing = self.standing
        return standing[-1].label if standing else None

    @property
    def disputed(self) -> bool:
        """Whether two reviewers call it by different names."""
        return len({review.label for review in self.standing}) > 1


def standing_labels(reviewed: Iterable[Reviewed]) -> dict[str, ReviewedLabel]:
    """By item the reviewers' label that stands; items whose labels were all withdrawn have none."""
    found = {}
    for one in reviewed:
        if one.standing:
            last = one.standing[-1]
            found[one.item] = ReviewedLabel(
                label=str(last.label),
                by=last.reviewer or last.caller,
                at=last.at,
                disputed=one.disputed,
            )
    return found


def labels_digest(labels: Mapping[str, ReviewedLabel]) -> str | None:
    """Sixteen hex digits over the labels that reviewers gave; `None` where there is none."""
    if not labels:
        return None
    words = json.dumps(sorted((id, one.label) for id, one in labels.items()))
    return sha256(words.encode()).hexdigest()[:16]


def agreement(reviewed: Iterable[Reviewed]) -> list[ReviewerPair]:
    """How far each two reviewers agree, over the items that both labelled.

    Returns:
        With Cohen's kappa (1960): 1 for full agreement, 0 for that of chance; `None` where both
        used one and the same label throughout.
    """
    both: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for one in reviewed:
        by = {review.reviewer or review.caller: str(review.label) for review in one.standing}
        for pair in combinations(sorted(by), 2):
            both.setdefault(pair, []).append((by[pair[0]], by[pair[1]]))
    return [
        ReviewerPair(
            one=pair[0],
            other=pair[1],
            items=len(labels),
            agreed=sum(a == b for a, b in labels),
            kappa=_kappa(labels),
        )
        for pair, labels in sorted(both.items())
    ]


def _kappa(labels: Sequence[tuple[str, str]]) -> float | None:
    n = len(labels)
    seen = sum(a == b for a, b in labels) / n
    first, second = Counter(a for a, _ in labels), Counter(b for _, b in labels)
    chance = sum(first[label] * second[label] for label in first) / n**2
    return None if chance == 1 else (seen - chance) / (1 - chance)


class Reviews:
    """The reviews of one collection.

    The log is part of the truth, beside the shards: it lies with the collection and not with a
    version, so a re-index, a rollback and an index made anew leave it as it is. Each line is on
    the disk (fsync) before `add` returns; a line that a power cut tore is left out and written
    over. Safe to use from many threads, and beside other processes.
    """

    def __init__(self, versions: Versions) -> None:
        self.path = versions.folder / FILE
        self._versions = versions
        self._turn = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._reviews: dict[str, list[Review]] = {}

    def add(
        self,
        labels: Sequence[tuple[Item, str | None, str | None]],
        caller: str,
        reviewer: str | None = None,
    ) -> int:
        """Add a reviewer's labels, as (item, label or `None`, note or `None`).

        A label that the same reviewer gave last is not added again.

        Returns:
            How many lines were added.

        Raises:
            ReviewsDamaged: the log cannot be read.
        """
        with self._turn, self._versions.writing():
            self._read()
            new = []
            for item, label, note in labels:
                mine = [r for r in self._reviews.get(item.id, []) if r.by == (caller, reviewer)]
                if (mine[-1].label if mine else None) == label:
                    continue
                new.append(
                    Review(
                        item=item.id,
                        label=label,
                        source_label=item.label,
                        caller=caller,
                        reviewer=reviewer,
                        at=now(),
                        note=note,
                    )
                )
            if new:
                append(self.path, "".join(json.dumps(asdict(review)) + "\n" for review in new))
                self._read()
        return len(new)

    def of(self, ids: Iterable[str]) -> dict[str, Reviewed]:
        """The reviews of those of `ids` that have any."""
        with self._turn:
            self._read()
            return {
                id: Reviewed(item=id, history=tuple(self._reviews[id]))
                for id in dict.fromkeys(ids)
                if id in self._reviews
            }

    def touched(self) -> tuple[int, int, int] | None:
        """What changes with every review; `None` where there is no log."""
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            return None
        return (facts.st_mtime_ns, facts.st_size, facts.st_ino)

    def all(self) -> list[Reviewed]:
        """Every review, in order of item id."""
        with self._turn:
            self._read()
            return [
                Reviewed(item=id, history=tuple(reviews))
                for id, reviews in sorted(self._reviews.items())
            ]

    def _read(self) -> None:
        seen = self.touched()
        if seen is None:
            self._seen, self._reviews = None, {}
            return
        if seen == self._seen:
            return
        self._reviews = {}
        for review in read(self.path):
            self._reviews.setdefault(review.item, []).append(review)
        self._seen = seen


def read(path: Path) -> list[Review]:
    """Every review in a log, oldest first.

    Raises:
        ReviewsDamaged: a line is not a review; a last line that was cut short is none.
    """
    found = []
    for number, line in enumerate(whole_lines(path).splitlines(), 1):
        try:
            found.append(Review(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ReviewsDamaged(
                f"line {number} of {path} is no review ({error}); restore the file from a backup"
            ) from error
    return found
