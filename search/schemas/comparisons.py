"""Two evaluations compared over the same items."""

from __future__ import annotations

from typing import Literal

from search.schemas.evaluations import Span, Unit
from search.schemas.items import DISCLAIMER, Record

Verdict = Literal["first", "second", "not shown"]


class PairedSide(Record):
    """One of the two."""

    id: str
    """Of the evaluation."""
    collection: str
    version: str
    encoder: str
    fingerprint: str
    method: str
    alone: int
    """Items that only this one tested; they are left out."""


class PairedScore(Record):
    """One score of both, over the items that both tested."""

    name: str
    """`weighted_f1` and so on; the label for the recall of a class."""
    first: float
    second: float
    difference: float
    """First less second."""
    span: Span
    """95 % confidence interval of the difference: the same patients or sources drawn for both."""
    asked: int
    """Test items behind it."""


class PairedResult(Record):
    """Two evaluations compared over the same items."""

    first: PairedSide
    second: PairedSide
    asked: int
    """Items that both tested, with the same label."""
    relabelled: int
    """Items that both tested with different labels; they are left out."""
    unit: Unit
    """What the intervals are drawn by."""
    clusters: int
    both_right: int
    only_first: int
    """Right by the first alone."""
    only_second: int
    neither: int
    scores: tuple[PairedScore, ...]
    classes: tuple[PairedScore, ...]
    """Recall of each label."""
    mcnemar: float | None
    """Two-sided exact p of McNemar's test over the items that one alone has right; `None` where
    several items belong to one patient or source, which the test does not allow."""
    verdict: Verdict
    """By the interval of the difference in weighted F1; `not shown` where it contains 0."""
    words: str
    """The verdict in one sentence."""
    notes: tuple[str, ...]
    disclaimer: str = DISCLAIMER
