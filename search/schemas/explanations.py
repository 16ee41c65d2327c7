"""Explanations: what is wanted, and what a query and its hits have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from search.schemas.items import DISCLAIMER, ItemId, Record
from search.schemas.questions import Question

MapName = Literal["colours", "correspondence", "causal", "attention", "vote"]


class ExplainQuestion(Question):
    """A question whose answer is to be explained: the query, and some of its hits."""

    hits: Annotated[tuple[ItemId, ...], Field(min_length=1, max_length=4)]
    """Stored items that the query is compared with."""
    maps: Annotated[tuple[MapName, ...], Field(min_length=1)] = ("colours", "correspondence")
    """What is wanted. `causal`, `attention`, `vote` and `correspondence` are checked, which takes
    a few hundred embeddings for each pair unless `check` is off; `colours` are quick."""
    check: bool = True
    """Compare maps with random maps. Unchecked maps are only given for `correspondence`."""


class MapCheck(Record):
    """A map compared with chance; areas are shares of the step from bare glass to the image."""

    deletion: float
    """Area under the score while the image is hidden, most important part first; low is good."""
    insertion: float
    """Area under the score while it is shown, most important part first; high is good."""
    random: tuple[float, ...]
    """Insertion less deletion of random maps of the same coarseness."""
    better: bool
    """Whether insertion less deletion beats every random map."""


class ExplainMap(Record):
    """How much each place of an image bears on a score."""

    kind: Literal["correspondence", "causal", "attention", "vote"]
    of: ItemId | None
    """The item whose image it covers; `None` for the query."""
    values: tuple[tuple[float, ...], ...] | None
    """Rows from the top, 0 to 1 (scaled by the map's own lowest and highest value); `None` where
    it is withheld."""
    check: MapCheck | None
    """`None` where it was not checked."""
    withheld: str | None = None
    """Why it is not shown."""


class ExplainColours(Record):
    """Patches of one image as colours that mean the same in all images of this answer."""

    of: ItemId | None
    """The item; `None` for the query."""
    rgb: tuple[tuple[tuple[int, int, int] | None, ...], ...]
    """Rows from the top, red, green and blue; `None` for background."""


class PatchMatch(Record):
    """A patch of the query and a patch of a hit, each the nearest of the other."""

    query: tuple[int, int]
    """Row and column."""
    hit: tuple[int, int]
    """Row and column."""
    cosine: float


class PairExplanation(Record):
    """A query and one hit."""

    item: ItemId
    cosine: float
    """Of the two vectors."""
    maps: tuple[ExplainMap, ...]
    matches: tuple[PatchMatch, ...] = ()


class Explanation(Record):
    """Why the hits were found."""

    encoder: str
    fingerprint: str
    colours: tuple[ExplainColours, ...] = ()
    """Of the query, then of the hits."""
    pairs: tuple[PairExplanation, ...] = ()
    vote: ExplainMap | None = None
    """Which parts of the query the share of the winning label rests on."""
    label: str | None = None
    """That label."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Maps that cannot be made, and why."""
    parts: dict[str, tuple[float, float, float, float]] = Field(default_factory=dict)
    """Of the pictures that the encoder was shown in part (its field of view): left, top, width and
    height of what the maps cover, as shares of the picture's sides; by id of the item, and `query`.
    Maps of all others cover the whole picture."""
    seconds: dict[str, float] = Field(default_factory=dict)
    disclaimer: str = DISCLAIMER
