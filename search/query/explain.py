"""Why this hit: colours, matches and checked maps over a query and its hits."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from encoder.contract import RGB, Encoder, NoPatchTokens, Patches, Vectors
from encoder.explain.causal import Hiding, Masks, Score, colour_masks, feature_masks
from encoder.explain.correspondence import (
    Grid,
    correspondence,
    joint_colours,
    matches,
    told_apart,
)
from encoder.image import read_rgb
from search.errors import BadQuestion, NoSuchItem
from search.index.contract import Store, Stored
from search.library.sources import seen
from search.query.context import Context
from search.query.resolve import Query, resolve, view_for
from search.query.stored import picture
from search.schemas.answers import ReviewedLabel
from search.schemas.explanations import (
    ExplainColours,
    ExplainMap,
    ExplainQuestion,
    Explanation,
    PairExplanation,
    PatchMatch,
)
from search.transforms.encoder import AdaptedEncoder
from search.votes.knn import vote, with_reviews

NEED_PATCHES = ("colours", "correspondence", "attention")
WITHHELD = (
    "Withheld: hiding what this map points at changes the score no more than hiding random parts."
)
NOT_APART = (
    "Withheld: the cell was not told from glass and other cells in each of these pictures, so that "
    "structure types would colour them too."
)
_turn = threading.Lock()


def explain(context: Context, question: ExplainQuestion, image: bytes | None) -> Explanation:
    """Explain why some hits are near a query.

    Raises:
        BadQuestion: the query is a bare vector, which shows nothing.
        NoSuchItem: a hit that is not there.
    """
    if question.vector is not None:
        raise BadQuestion("a vector shows nothing; query with an image or a stored item")
    if question.fuse_with is not None:
        raise BadQuestion("fused ranks are not explained; leave fuse_with out")
    collection, encoder = context.collection, context.encoder()
    query = resolve(context, question, image)
    found = {one.item.id: one for one in collection.store.get(question.hits)}
    for id in question.hits:
        if id not in found:
            raise NoSuchItem(id, collection.name)
    hits = [found[id] for id in dict.fromkeys(question.hits)]
    content = picture(context, str(question.item))[0] if image is None else image
    with context.pictures.opened(content, "the image") as opened, _turn:  # each uses every core
        if image is None:
            shown = [_shown_of_item(context, str(question.item))]
        else:
            shown = [_shown_of_query(context, question, opened.pixels)]
        shown += [_shown_of_item(context, one.item.id) for one in hits]
        made = _Explaining(collection.store, encoder, question, query, hits, [p for p, _ in shown])
        made.labels = context.reviewed(question.labels)
        names = ["query", *(one.item.id for one in hits)]
        parts = {name: one for name, (_, one) in zip(names, shown, strict=True) if one != WHOLE}
        return made.all().model_copy(update={"parts": parts})


Shares = tuple[float, float, float, float]
"""Left, top, width and height of a part of a picture, as shares of its sides."""
WHOLE: Shares = (0.0, 0.0, 1.0, 1.0)


def _shown_of_query(context: Context, question: ExplainQuestion, pixels: RGB) -> tuple[RGB, Shares]:
    """What the encoder was shown of an uploaded query, and its place in the picture or crop."""
    view = view_for(context, question, pixels)
    height, width = view.given.shape[:2]
    high, wide = view.pixels.shape[:2]
    left, top = view.offset
    return view.pixels, (left / width, top / height, wide / width, high / height)


def _shown_of_item(context: Context, id: str) -> tuple[RGB, Shares]:
    """What the encoder was shown of a stored item, and its place in the item's picture."""
    content, from_file = picture(context, id)
    pixels, entry = read_rgb(content), context.collection.rows.entry(id)
    height, width = pixels.shape[:2]
    if entry is None or (entry.item.bbox is None and not from_file):  # its size is not known
        return pixels, WHOLE
    item = entry.item
    if item.bbox is not None and item.um_per_px is not None:  # a thumbnail has larger pixels
        um = item.um_per_px * max(item.bbox.w, item.bbox.h) / max(height, width)
        item = item.model_copy(update={"um_per_px": um})
    part = seen(context.collection.card, pixels, item, entry.notes)
    high, wide = part.shape[:2]
    left, top = (width - wide) // 2, (height - high) // 2
    return part, (left / width, top / height, wide / width, high / height)


class _Explaining:
    """The work on one question."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        question: ExplainQuestion,
        query: Query,
        hits: Sequence[Stored],
        pixels: Sequence[RGB],
    ) -> None:
        self.store, self.encoder = store, encoder
        self.question, self.query, self.hits, self.pixels = question, query, hits, pixels
        self.labels: Mapping[str, ReviewedLabel] = {}
        self.seconds: dict[str, float] = {}
        self.left_out: dict[str, str] = {}
        self.tokens: Patches | None = None
        started = perf_counter()
        try:
            self.vectors, self.tokens = encoder.tokens(pixels)
        except NoPatchTokens as error:
            self.vectors = encoder.embed(pixels)
            self.left_out = {name: _sentence(error) for name in NEED_PATCHES if self.wants(name)}
        self.seconds["embed"] = perf_counter() - started

    def wants(self, name: str) -> bool:
        return name in self.question.maps

    def all(self) -> Explanation:
        card = self.encoder.card
        colours = self._colours()
        pairs = tuple(self._pair(at, hit) for at, hit in enumerate(self.hits, 1))
        label, voted = self._vote() if self.wants("vote") else (None, None)
        return Explanation(
            encoder=card.id,
            fingerprint=card.fingerprint,
            colours=colours,
            pairs=pairs,
            vote=voted,
            label=label,
            left_out=self.left_out,
            seconds=self.seconds,
        )

    def _colours(self) -> tuple[ExplainColours, ...]:
        if self.tokens is None or not (self.wants("colours") or self.wants("correspondence")):
            return ()
        started = perf_counter()
        self.inside = joint_colours(list(self.tokens))
        self.seconds["colours"] = perf_counter() - started
        if not self.wants("colours"):
            return ()
        if not told_apart(self.inside):
            self.left_out["colours"] = NOT_APART
            return ()
        ids = [None, *(hit.item.id for hit in self.hits)]
        return tuple(
            ExplainColours(of=id, rgb=_rgb(one.rgb, one.foreground))
            for id, one in zip(ids, self.inside, strict=True)
        )

    def _pair(self, at: int, hit: Stored) -> PairExplanation:
        wanted = self.query.like[0]
        maps: list[ExplainMap] = []
        pairs: tuple[PatchMatch, ...] = ()
        sides = (
            (None, 0, _Toward(hit.vector)),
            (hit.item.id, at, _Toward(wanted)),
        )
        hidings = {id: _Late(self._encoder_of(n), self.pixels[n], score) for id, n, score in sides}
        if self.tokens is not None and self.wants("correspondence"):
            started = perf_counter()
            both = correspondence(self.tokens[0], self.tokens[at])
            inside = (self.inside[0].foreground, self.inside[at].foreground)
            pairs = tuple(
                PatchMatch(query=pair.one, hit=pair.other, cosine=pair.cosine)
                for pair in matches(self.tokens[0], self.tokens[at], inside)
            )
            self._add("correspondence", started)
            for (id, _, _), grid in zip(sides, both, strict=True):
                maps.append(self._checked("correspondence", id, grid, hidings[id]))
        if self.wants("causal"):
            for id, n, _ in sides:
                started = perf_counter()
                hiding = hidings[id].get()
                grid = hiding.causal(self._masks(n, hiding.grid))
                self._add("causal", started)
                maps.append(self._checked("causal", id, grid, hidings[id]))
        if self.tokens is not None and self.wants("attention"):
            for id, n, _ in sides:
                started = perf_counter()
                try:
                    grid = np.asarray(self.encoder.attention([self.pixels[n]])[0], np.float64)
                except NoPatchTokens:
                    self.left_out["attention"] = (
                        "This encoder's last block has no attention that can be read."
                    )
                    break
                self._add("attention", started)
                maps.append(self._checked("attention", id, grid, hidings[id]))
        cosine = float(np.clip(wanted.astype(np.float64) @ hit.vector, -1, 1))
        return PairExplanation(item=hit.item.id, cosine=cosine, maps=tuple(maps), matches=pairs)

    def _encoder_of(self, n: int) -> Encoder:
        """The encoder of picture `n`, aligned as its whole picture was: parts hidden change
        nothing of that."""
        encoder = self.encoder
        if not isinstance(encoder, AdaptedEncoder):
            return encoder
        if n:
            return encoder.at(getattr(self.hits[n - 1].item, encoder.adaptation.field))
        if self.query.item is not None:
            return encoder.at(getattr(self.query.item, encoder.adaptation.field))
        alignment = self.query.alignment
        return encoder.at(alignment.site if alignment else None)

    def _masks(self, n: int, grid: tuple[int, int]) -> Masks:
        if self.tokens is None:
            return colour_masks(self.pixels[n], grid)
        return feature_masks(self.tokens[n])

    def _checked(self, kind: str, id: str | None, grid: Grid, late: _Late) -> ExplainMap:
        if not self.question.check and kind == "correspondence":
            return ExplainMap.model_validate(
                {"kind": kind, "of": id, "values": _scaled(grid), "check": None}
            )
        started = perf_counter()
        check = late.get().check(grid)
        self._add("check", started)
        return ExplainMap.model_validate(
            {
                "kind": kind,
                "of": id,
                "values": _scaled(grid) if check.better else None,
                "check": vars(check) | {"better": check.better},
                "withheld": None if check.better else WITHHELD,
            }
        )

    def _vote(self) -> tuple[str | None, ExplainMap | None]:
        """Which part of the query the share of the winning label rests on, by searching again."""
        question, store = self.question, self.store
        exclude = self.query.exclusion(question)
        where = None if question.where.empty else question.where
        without = None if exclude.empty else exclude

        def lists(vectors: Vectors) -> list[dict[str, float]]:
            found = store.nearest_batch(vectors, question.k, where, without)
            return [vote(with_reviews(hits, self.labels)).shares for hits in found]

        shares = lists(self.query.like[0][None])[0]
        if not shares:
            self.left_out["vote"] = "No neighbour carries a label, so there is no vote to explain."
            return None, None
        label = next(iter(shares))

        def score(vectors: Vectors) -> NDArray[np.float64]:
            return np.array([one.get(label, 0.0) for one in lists(vectors)])

        started = perf_counter()
        late = _Late(self._encoder_of(0), self.pixels[0], score)
        hiding = late.get()
        grid = hiding.causal(self._masks(0, hiding.grid))
        self._add("vote", started)
        return label, self._checked("vote", None, grid, late)

    def _add(self, name: str, started: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - started


class _Toward:
    """The cosine to a vector, as a score."""

    def __init__(self, wanted: Vectors) -> None:
        self._wanted = wanted.astype(np.float64)

    def __call__(self, vectors: Vectors) -> NDArray[np.float64]:
        return np.asarray(vectors.astype(np.float64) @ self._wanted, np.float64)


class _Late:
    """A `Hiding` that is made when it is first needed: it embeds twice as it is made."""

    def __init__(self, encoder: Encoder, image: RGB, score: Score) -> None:
        self._given = (encoder, image, score)
        self._made: Hiding | None = None

    def get(self) -> Hiding:
        if self._made is None:
            self._made = Hiding(*self._given)
        return self._made


def _scaled(grid: Grid) -> tuple[tuple[float, ...], ...]:
    low, high = float(grid.min()), float(grid.max())
    rows = (grid - low) / (high - low) if high > low else np.zeros_like(grid)
    return tuple(tuple(round(float(value), 4) for value in row) for row in rows)


def _rgb(
    rgb: NDArray[np.uint8], inside: NDArray[np.bool_]
) -> tuple[tuple[tuple[int, int, int] | None, ...], ...]:
    return tuple(
        tuple(
            (int(red), int(green), int(blue)) if there else None
            for (red, green, blue), there in zip(row, marks, strict=True)
        )
        for row, marks in zip(rgb, inside, strict=True)
    )


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
