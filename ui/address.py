"""A search as one record, which becomes a question to the service and an address of the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError

from encoder.card import CellKind
from search.schemas.filters import Filter
from search.schemas.items import Box, ItemId, Record
from search.schemas.questions import RELATIONS, About, Examples, Question, Refinement

LISTED = ("like", "unlike")
BOXES = ("crop", "region")
DEFAULT_K = 10
MOST_COMPARED = 4
"""Hits beside a query on Compare."""


class Searching(Record):
    """A search as the page knows it, apart from the picture itself."""

    collection: str | None = None
    item: ItemId | None = None
    """The stored item that is the query."""
    upload: str | None = None
    """Id (digest of the bytes) of the uploaded picture that is the query."""
    crop: Box | None = None
    """The part of the uploaded picture that is the query."""
    region: Box | None = None
    """The part of the query picture (of the crop, where there is one) that the gallery follows."""
    k: int = DEFAULT_K
    grouped: bool = True
    """One group for each patient, best first."""
    own: bool = False
    """Whether the query's own patient may be found."""
    patient: str | None = None
    um_per_px: float | None = None
    um_estimated: bool = False
    """Whether the scale is an estimate from red cells, and not typed."""
    um_spread: float | None = None
    """Of an estimate: the middle half of the single cells' um/px."""
    cell: CellKind | None = None
    """What the crop was made about, where the finder told."""
    where: Filter = Filter()
    least: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = None
    """Similarity that is shown at least; less similar neighbours are hidden, and vote."""
    like: Examples = ()
    unlike: Examples = ()

    @property
    def refined(self) -> bool:
        """Whether anything is wanted more or less of, or a part of the picture alone."""
        return bool(self.like or self.unlike or self.region)

    @property
    def um_given(self) -> float | None:
        """The scale where a person gave it, in micrometres per pixel."""
        return None if self.um_estimated else self.um_per_px

    @property
    def asks(self) -> bool:
        """Whether there is a query."""
        return self.item is not None or self.upload is not None

    def question(self) -> Question:
        """The question for the vote: ungrouped, because a vote is of single neighbours."""
        return Question.model_validate(self._common())

    def shown(self) -> Refinement:
        """The question for the gallery."""
        grouping = {"group_by": "group", "per_group": 3} if self.grouped else {}
        return Refinement.model_validate(
            {
                **self._common(),
                **grouping,
                "like": self.like,
                "unlike": self.unlike,
                "region": None if self.region is None or self.item else self.region.model_dump(),
                "show_examples": True,
                "strategy": "best_score" if self.unlike else "average_vector",
            }
        )

    def _common(self) -> dict[str, Any]:
        exclude = [name for name in RELATIONS if not self.own or name in {"item", "duplicate"}]
        return {
            "collection": self.collection,
            "item": self.item,
            "crop": None if self.crop is None or self.item else self.crop.model_dump(),
            "k": self.k,
            "exclude": exclude,
            "where": self.where.model_dump(),
            "about": self._about().model_dump(),
        }

    def _about(self) -> About:
        estimated = self.um_per_px is not None and self.um_estimated
        return About(
            patient=self.patient,
            um_per_px=self.um_per_px,
            um_per_px_origin="estimate" if estimated else None,
            um_per_px_spread=self.um_spread if estimated else None,
            cell=None if self.crop is None else self.cell,
        )

    def toggled(self, name: str, id: str) -> Searching:
        """With an item more (or no more) among `like` or `unlike`, never among both."""
        other = "unlike" if name == "like" else "like"
        mine = tuple(getattr(self, name))
        changed = tuple(one for one in mine if one != id) if id in mine else (*mine, id)
        rest = tuple(one for one in getattr(self, other) if one != id)
        return self.model_copy(update={name: changed, other: rest})

    def address(self) -> dict[str, str]:
        """As parameters of the page's address: what differs from the usual, and nothing of the
        patient but what was typed as a filter."""
        facts = self.model_dump(mode="json", exclude_defaults=True)
        facts.pop("patient", None)  # a link is passed on
        found = {}
        for name, value in facts.items():
            if name in BOXES:
                value = ",".join(str(value[side]) for side in ("x", "y", "w", "h"))
            elif name in LISTED:
                value = ",".join(value)
            elif name == "where":
                value = json.dumps(value, separators=(",", ":"))
            elif isinstance(value, bool):
                value = "yes" if value else "no"
            found[name] = str(value)
        return found

    @classmethod
    def of_address(cls, params: Mapping[str, str]) -> Searching:
        """The search that an address names.

        Raises:
            BadAddress: a part of it is not as the page writes it.
        """
        found: dict[str, Any] = {}
        for name, value in params.items():
            if name not in cls.model_fields or name == "patient":
                continue
            try:
                if name in BOXES:
                    sides = [int(side) for side in value.split(",")]
                    found[name] = dict(zip(("x", "y", "w", "h"), sides, strict=True))
                elif name in LISTED:
                    found[name] = [one for one in value.split(",") if one]
                elif name == "where":
                    found[name] = json.loads(value)
                elif name in {"grouped", "own", "um_estimated"}:
                    found[name] = {"yes": True, "no": False}[value]
                else:
                    found[name] = value
            except (ValueError, KeyError) as error:
                raise BadAddress(name, value) from error
        try:
            made = cls.model_validate(found)
            made.shown()
        except ValidationError as error:
            where = error.errors()[0]["loc"]
            name = str(where[0]) if where else "address"
            raise BadAddress(name, str(params.get(name, ""))) from error
        return made


class BadAddress(ValueError):
    """A link that does not name a search."""

    def __init__(self, name: str, value: str) -> None:
        super().__init__(
            f"this link has {name}={value[:60]!r}, which does not name a search; "
            "it may have been cut short when it was passed on"
        )
