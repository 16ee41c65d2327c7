"""The client's calls about collections, items, reviews, maps, sources, versions and jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from search.client.transport import Transport, given
from search.schemas.collections import (
    Brought,
    CollectionFacts,
    Facets,
    Released,
    ReleaseWanted,
    SourceFacts,
)
from search.schemas.evaluations import TrustWanted
from search.schemas.exports import ExportWanted, SelectionRecord, Selections, SelectionWanted
from search.schemas.filters import Filter
from search.schemas.items import Item
from search.schemas.maps import (
    BatchEffects,
    GateFacts,
    GateGroup,
    Gates,
    GateWanted,
    MapAnswer,
    MapFacts,
    MapWanted,
    Method,
    PlaceAnswer,
    PlaceQuestion,
)
from search.schemas.questions import About
from search.schemas.reviews import (
    ItemPage,
    ItemsWanted,
    ReviewAgreement,
    ReviewedPage,
    ReviewedRecord,
    ReviewsWanted,
    ReviewsWritten,
    Said,
)
from search.schemas.versions import (
    AdaptWanted,
    JobRecord,
    Pruned,
    ReindexWanted,
    RollbackWanted,
    SwitchRecord,
    VersionRecord,
)

SLOW_S = 300
"""Seconds that a first map, or a rollback, may take."""


EXPORT_S = 600
"""Seconds that an export may take."""


class LibraryCalls(Transport):
    """Part of `search.client.client.Client`."""

    def export(self, collection: str, wanted: ExportWanted) -> tuple[str, bytes]:
        """Items with their vectors as a file: its name and its bytes."""
        path = f"/v1/collections/{collection}/export"
        text = wanted.model_dump_json(exclude_defaults=True)
        headers = {"Content-Type": "application/json"}
        answer = self._call("POST", path, content=text, headers=headers, timeout=EXPORT_S)
        name = answer.headers.get("Content-Disposition", "").partition('filename="')[2]
        return name.rstrip('"'), answer.content

    def selections(self, collection: str) -> Selections:
        """The items that are kept together under a name."""
        return self._get(Selections, f"/v1/collections/{collection}/selections")

    def keep_selection(
        self, collection: str, name: str, wanted: SelectionWanted
    ) -> SelectionRecord:
        """Keep items together under a name."""
        path = f"/v1/collections/{collection}/selections/{quote(name, safe='')}"
        headers = {"Content-Type": "application/json"}
        answer = self._call("PUT", path, content=wanted.model_dump_json(), headers=headers)
        return SelectionRecord.model_validate_json(answer.content)

    def drop_selection(self, collection: str, name: str) -> None:
        """Forget a selection; its items stay."""
        self._call("DELETE", f"/v1/collections/{collection}/selections/{quote(name, safe='')}")

    def collections(self) -> list[CollectionFacts]:
        """Every collection."""
        return self._list(CollectionFacts, "/v1/collections")

    def facets(self, collection: str, field: str, limit: int = 100) -> dict[str, int]:
        """Values of a field with their counts."""
        path = f"/v1/collections/{collection}/facets/{field}"
        return self._get(Facets, path, params={"limit": limit}).values

    def item(self, id: str, collection: str | None = None) -> Item:
        """One stored item."""
        return self._get(Item, f"/v1/items/{id}", params=given(collection=collection))

    def image(
        self,
        id: str,
        collection: str | None = None,
        size: Literal["thumbnail", "full"] = "thumbnail",
    ) -> bytes:
        """The picture of a stored item, as JPEG."""
        params = given(collection=collection, size=size)
        return self._call("GET", f"/v1/items/{id}/image", params=params).content

    def items_page(
        self, collection: str, where: Filter, limit: int = 100, after: str | None = None
    ) -> ItemPage:
        """A page of the items that meet a filter, in order of id."""
        wanted = ItemsWanted(where=where, limit=limit, after=after)
        return self._post(ItemPage, f"/v1/collections/{collection}/items/page", wanted)

    def items(self, collection: str, where: Filter, most: int = 5000) -> Iterator[Item]:
        """Items that meet a filter, in order of id, at most `most`."""
        after, left = None, most
        while left > 0:
            page = self.items_page(collection, where, min(left, 1000), after)
            yield from page.items
            left, after = left - len(page.items), page.next
            if after is None:
                return

    def review(
        self, collection: str, labels: dict[str, str | None], reviewer: str | None, note: str = ""
    ) -> ReviewsWritten:
        """Add a reviewer's labels, by item id; `None` withdraws an earlier one."""
        reviews = tuple(
            Said(item=id, label=label, note=note or None) for id, label in labels.items()
        )
        wanted = ReviewsWanted(reviews=reviews, reviewer=reviewer or None)
        return self._post(ReviewsWritten, f"/v1/collections/{collection}/reviews", wanted)

    def reviews(self, collection: str) -> Iterator[ReviewedRecord]:
        """Every item that reviewers have labelled, with its history."""
        path, after = f"/v1/collections/{collection}/reviews", None
        while True:
            found = self._get(ReviewedPage, path, params=given(limit=1000, after=after))
            yield from found.reviewed
            after = found.next
            if after is None:
                return

    def agreement(self, collection: str) -> ReviewAgreement:
        """How far the reviewers of a collection agree."""
        return self._get(ReviewAgreement, f"/v1/collections/{collection}/reviews/agreement")

    def item_reviews(self, id: str, collection: str) -> ReviewedRecord:
        """The reviewers' labels of one item."""
        path = f"/v1/items/{id}/reviews"
        return self._get(ReviewedRecord, path, params={"collection": collection})

    def map(self, collection: str, method: Method = "pca") -> MapAnswer:
        """A collection as a map, column by column."""
        path = f"/v1/collections/{collection}/map"
        return self._get(MapAnswer, path, params={"method": method}, timeout=SLOW_S)

    def maps(self, collection: str) -> list[MapFacts]:
        """The maps that were computed, and whether they are still valid."""
        return self._list(MapFacts, f"/v1/collections/{collection}/maps")

    def start_map(
        self, collection: str, method: Method = "tsne", perplexity: float = 30
    ) -> JobRecord:
        """Compute a map; the job that does it."""
        wanted = MapWanted(method=method, perplexity=perplexity)
        return self._post(JobRecord, f"/v1/collections/{collection}/map", wanted)

    def start_trust(self, collection: str, wanted: TrustWanted) -> JobRecord:
        """Measure when an answer should not be trusted; the job whose result has the figures."""
        return self._post(JobRecord, f"/v1/collections/{collection}/trust", wanted)

    def gates(self, collection: str, by: GateGroup = "label") -> Gates:
        """The gates that are kept, each counted by group."""
        return self._get(Gates, f"/v1/collections/{collection}/gates", params={"by": by})

    def keep_gate(
        self, collection: str, name: str, wanted: GateWanted, by: GateGroup = "label"
    ) -> GateFacts:
        """Keep a part of a map under a name."""
        path = f"/v1/collections/{collection}/gates/{quote(name, safe='')}"
        text = wanted.model_dump_json(exclude_defaults=True)
        headers = {"Content-Type": "application/json"}
        answer = self._call("PUT", path, content=text, headers=headers, params={"by": by})
        return GateFacts.model_validate_json(answer.content)

    def drop_gate(self, collection: str, name: str) -> None:
        """Remove a gate."""
        self._call("DELETE", f"/v1/collections/{collection}/gates/{quote(name, safe='')}")

    def place(
        self,
        collection: str,
        method: Method,
        images: Sequence[bytes | Path] = (),
        items: Sequence[str] = (),
        patient: str | None = None,
    ) -> PlaceAnswer:
        """Where cells lie on a map that stays as it is."""
        path = f"/v1/collections/{collection}/map/place"
        question = PlaceQuestion(method=method, items=tuple(items), about=About(patient=patient))
        files = [("images", image) for image in images]
        return self._post(PlaceAnswer, path, question, files, timeout=SLOW_S)

    def batch_effects(self, collection: str, field: str = "site", k: int = 10) -> BatchEffects:
        """How much neighbours are ordered by origin, and how much by label."""
        path = f"/v1/collections/{collection}/batch-effects"
        return self._get(BatchEffects, path, params={"field": field, "k": k}, timeout=SLOW_S)

    def source(self, id: str, collection: str) -> SourceFacts:
        """What a stored source is, for a viewer."""
        return self._get(SourceFacts, f"/v1/sources/{id}", params={"collection": collection})

    def tile(self, id: str, collection: str, level: int, column: int, row: int) -> bytes:
        """One tile of a stored source, as JPEG."""
        path = f"/v1/sources/{id}/dzi_files/{level}/{column}_{row}.jpeg"
        return self._call("GET", path, params={"collection": collection}).content

    def card(self, collection: str) -> dict[str, Any]:
        """The card of the encoder of a collection, as JSON: what it holds depends on the kind."""
        found: dict[str, Any] = self._call("GET", f"/v1/collections/{collection}/card").json()
        return found

    def versions(self, collection: str) -> list[VersionRecord]:
        """The versions of a collection with their checks, oldest first."""
        return self._list(VersionRecord, f"/v1/collections/{collection}/versions")

    def adapt(
        self, collection: str, kind: str, field: str = "site", *, force: bool = False
    ) -> JobRecord:
        """Fit a transform on the stored vectors and build a version with it; the job."""
        wanted = AdaptWanted.model_validate({"kind": kind, "field": field, "force": force})
        return self._post(JobRecord, f"/v1/collections/{collection}/adapt", wanted)

    def reindex(
        self, collection: str, encoder: str, *, allow_missing: bool = False, force: bool = False
    ) -> JobRecord:
        """Build a version with another encoder; the job that does it."""
        wanted = ReindexWanted(encoder=encoder, allow_missing=allow_missing, force=force)
        return self._post(JobRecord, f"/v1/collections/{collection}/reindex", wanted)

    def rollback(
        self, collection: str, version: str | None = None, *, force: bool = False
    ) -> SwitchRecord:
        """Serve the version before, or another one."""
        wanted = RollbackWanted(version=version, force=force)
        path = f"/v1/collections/{collection}/rollback"
        return self._post(SwitchRecord, path, wanted, timeout=SLOW_S)

    def prune(self, collection: str, keep: int = 1) -> tuple[str, ...]:
        """Delete old versions for good; which."""
        path = f"/v1/collections/{collection}/prune"
        return self._post(Pruned, path, params={"keep": keep}, timeout=SLOW_S).pruned

    def jobs(self) -> list[JobRecord]:
        """The jobs on collections that this key may read, oldest first."""
        return self._list(JobRecord, "/v1/jobs")

    def job(self, id: str) -> JobRecord:
        """A job, as it stands."""
        return self._get(JobRecord, f"/v1/jobs/{id}")

    def stop_job(self, id: str) -> JobRecord:
        """Ask a job to stop."""
        return JobRecord.model_validate_json(self._call("DELETE", f"/v1/jobs/{id}").content)

    def ingests(self, collection: str) -> Brought:
        """What was ingested, and what was set aside."""
        return self._get(Brought, f"/v1/collections/{collection}/ingests")

    def set_aside(self, collection: str, key: str) -> bytes:
        """What can be seen of a file that was set aside, as JPEG."""
        return self._call("GET", f"/v1/collections/{collection}/ingests/{key}/thumbnail").content

    def release(self, collection: str, keys: Sequence[str] = ()) -> int:
        """Let files that were set aside be read again by the next run."""
        path = f"/v1/collections/{collection}/ingests/release"
        return self._post(Released, path, ReleaseWanted(keys=tuple(keys))).released
