"""The client's calls about items, reviews, cases, maps, sources, versions, jobs and ingests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from search.schemas.filters import Filter
from search.schemas.items import Item

if TYPE_CHECKING:
    import httpx

    from search.schemas.cases import CaseCount

JSON = dict[str, Any]
SLOW_S = 300
"""Seconds that a first map, a count of a large case, or a rollback may take."""


class LibraryCalls:
    """Part of `search.client.client.Client`; what has no record of its own comes as plain JSON."""

    def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        raise NotImplementedError

    def items_page(
        self, collection: str, where: Filter, limit: int = 100, after: str | None = None
    ) -> tuple[list[Item], int, str | None]:
        """Items that meet a filter in order of id: a page, how many there are, and what is next."""
        body = {"where": _body(where), "limit": limit, "after": after}
        found = self._post(f"/v1/collections/{collection}/items/page", body)
        return [Item.model_validate(one) for one in found["items"]], found["total"], found["next"]

    def items(self, collection: str, where: Filter, most: int = 5000) -> Iterator[Item]:
        """Items that meet a filter, in order of id, at most `most`."""
        after, left = None, most
        while left > 0:
            page, _, after = self.items_page(collection, where, min(left, 1000), after)
            yield from page
            left -= len(page)
            if after is None:
                return

    def review(
        self, collection: str, labels: dict[str, str | None], reviewer: str | None, note: str = ""
    ) -> JSON:
        """Say what items are called, by id; `None` takes an earlier word back."""
        said = [{"item": id, "label": label, "note": note or None} for id, label in labels.items()]
        body = {"reviews": said, "reviewer": reviewer or None}
        return self._post(f"/v1/collections/{collection}/reviews", body)

    def reviews(self, collection: str) -> Iterator[JSON]:
        """Every item of which reviewers have spoken, with all that was said."""
        path, after = f"/v1/collections/{collection}/reviews", None
        while True:
            params = {"limit": 1000, **({} if after is None else {"after": after})}
            found = self._call("GET", path, params=params).json()
            yield from found["reviewed"]
            after = found["next"]
            if after is None:
                return

    def item_reviews(self, id: str, collection: str) -> JSON:
        """What was said of one item."""
        return self._get(f"/v1/items/{id}/reviews", collection=collection)

    def count_case(
        self, collection: str, case: str, by: str = "case", k: int = 20, cells: int = 500
    ) -> CaseCount:
        """The differential count of a case by its source, by reviewers and by neighbours."""
        from search.schemas.cases import CaseCount

        body = {"case": case, "by": by, "k": k, "cells": cells}
        path = f"/v1/collections/{collection}/cases/count"
        return CaseCount.model_validate(self._post(path, body, SLOW_S))

    def map(self, collection: str, method: Literal["pca", "tsne"] = "pca") -> JSON:
        """A collection as a map, column by column."""
        path = f"/v1/collections/{collection}/map"
        found: JSON = self._call("GET", path, params={"method": method}, timeout=SLOW_S).json()
        return found

    def maps(self, collection: str) -> list[JSON]:
        """The maps that were computed, and whether they still hold."""
        found: list[JSON] = self._call("GET", f"/v1/collections/{collection}/maps").json()
        return found

    def start_map(self, collection: str, method: str = "tsne", perplexity: float = 30) -> JSON:
        """Compute a map; the job that does it."""
        body = {"method": method, "perplexity": perplexity}
        return self._post(f"/v1/collections/{collection}/map", body)

    def place(
        self,
        collection: str,
        method: str,
        images: Sequence[bytes | Path] = (),
        items: Sequence[str] = (),
        patient: str | None = None,
    ) -> JSON:
        """Where cells lie on a map that stays as it is."""
        import json

        path = f"/v1/collections/{collection}/map/place"
        question = {"method": method, "about": {"patient": patient}}
        if not images:
            return self._post(path, {**question, "items": list(items)}, SLOW_S)
        files = [
            ("images", (f"cell-{at}", _bytes(one), "application/octet-stream"))
            for at, one in enumerate(images)
        ]
        data = {"question": json.dumps(question)}
        found: JSON = self._call("POST", path, files=files, data=data, timeout=SLOW_S).json()
        return found

    def batch_effects(self, collection: str, field: str = "site", k: int = 10) -> JSON:
        """How much neighbours are ordered by origin, and how much by label."""
        path = f"/v1/collections/{collection}/batch-effects"
        params = {"field": field, "k": k}
        found: JSON = self._call("GET", path, params=params, timeout=SLOW_S).json()
        return found

    def source(self, id: str, collection: str) -> JSON:
        """What a stored source is, for a viewer."""
        return self._get(f"/v1/sources/{id}", collection=collection)

    def tile(self, id: str, collection: str, level: int, column: int, row: int) -> bytes:
        """One tile of a stored source, as JPEG."""
        path = f"/v1/sources/{id}/dzi_files/{level}/{column}_{row}.jpeg"
        return self._call("GET", path, params={"collection": collection}).content

    def card(self, collection: str) -> JSON:
        """The card of the encoder of a collection."""
        return self._get(f"/v1/collections/{collection}/card")

    def versions(self, collection: str) -> list[JSON]:
        """The versions of a collection with their gates, oldest first."""
        found: list[JSON] = self._call("GET", f"/v1/collections/{collection}/versions").json()
        return found

    def reindex(
        self, collection: str, encoder: str, *, allow_missing: bool = False, force: bool = False
    ) -> JSON:
        """Build a version with another encoder; the job that does it."""
        body = {"encoder": encoder, "allow_missing": allow_missing, "force": force}
        return self._post(f"/v1/collections/{collection}/reindex", body)

    def rollback(self, collection: str, version: str | None = None, *, force: bool = False) -> JSON:
        """Serve the version before, or another one."""
        body = {"version": version, "force": force}
        return self._post(f"/v1/collections/{collection}/rollback", body, SLOW_S)

    def prune(self, collection: str, keep: int = 1) -> list[str]:
        """Delete old versions for good; which."""
        path = f"/v1/collections/{collection}/prune"
        found = self._call("POST", path, params={"keep": keep}, timeout=SLOW_S).json()
        return [str(id) for id in found["pruned"]]

    def jobs(self) -> list[JSON]:
        """The jobs on collections that this key may read, oldest first."""
        found: list[JSON] = self._call("GET", "/v1/jobs").json()
        return found

    def job(self, id: str) -> JSON:
        """A job, as it stands."""
        return self._get(f"/v1/jobs/{id}")

    def stop_job(self, id: str) -> JSON:
        """Ask a job to stop."""
        found: JSON = self._call("DELETE", f"/v1/jobs/{id}").json()
        return found

    def ingests(self, collection: str) -> JSON:
        """What was brought in, and what was set aside."""
        return self._get(f"/v1/collections/{collection}/ingests")

    def set_aside(self, collection: str, key: str) -> bytes:
        """What can be seen of a file that was set aside, as JPEG."""
        return self._call("GET", f"/v1/collections/{collection}/ingests/{key}/thumbnail").content

    def release(self, collection: str, keys: Sequence[str] = ()) -> int:
        """Let files that were set aside be read again by the next run."""
        path = f"/v1/collections/{collection}/ingests/release"
        return int(self._post(path, {"keys": list(keys)})["released"])

    def _get(self, path: str, **params: str) -> JSON:
        found: JSON = self._call("GET", path, params=params).json()
        return found

    def _post(self, path: str, body: JSON, timeout: float | None = None) -> JSON:
        more = {} if timeout is None else {"timeout": timeout}
        found: JSON = self._call("POST", path, json=body, **more).json()
        return found


def _body(where: Filter) -> JSON:
    return where.model_dump(mode="json", exclude_defaults=True)


def _bytes(image: bytes | Path) -> bytes:
    return image.read_bytes() if isinstance(image, Path) else image
