"""Where a run writes to: a library that this process has open, or a service that has."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote

import httpx

from encoder.card import EncoderCard
from search.cases.represented import prepare
from search.disk.closing import Closing
from search.errors import NoSuchCollection, StoreDown, StoreError, WrongEncoder
from search.index.contract import BuildReport, scroll_all
from search.library.collection import Collection
from search.library.library import Library
from search.library.shards import Entry, make_shard_bytes
from search.schemas.cases import CaseRecordsWanted
from search.schemas.filters import Filter
from search.schemas.items import Item

TRIES = 4
"""How often a request is sent before a service is called down."""
PAUSE_S = 0.5
"""Pause before the second try; it doubles each time."""


class Sink(Protocol):
    """One collection, as a run sees it. Each call may come from another thread.

    Every write may be repeated: what is stored already is left as it is.
    """

    card: EncoderCard
    """The encoder of the collection."""

    def known(self, ids: Sequence[str]) -> dict[str, str]:
        """The payload digests (`search.library.shards.payload_digest`) of those `ids` that are
        stored."""
        ...

    def put(self, entries: Sequence[Entry]) -> None:
        """Store entries as one shard; durable when it returns."""
        ...

    def update(self, items: Sequence[Item]) -> None:
        """New metadata for stored items; vectors and thumbnails stay. Durable when it returns."""
        ...

    def of_sources(self, dataset: str, sources: Sequence[str]) -> list[Item]:
        """Every stored item of some sources of a dataset."""
        ...

    def remove(self, ids: Sequence[str]) -> None:
        """Remove items; `Collection.bring_back` undoes it. Durable when it returns."""
        ...

    def build(self) -> BuildReport:
        """Build the search graph and measure its recall."""
        ...

    def close(self) -> None:
        """Release the collection; safe to call twice."""
        ...


class Destination(Sink, Protocol):
    """A collection that takes what is known of cases too."""

    def change_cases(self, wanted: CaseRecordsWanted) -> int:
        """Keep what a table says of cases; how many records are new or have changed.

        Raises:
            BadCase, StoreError: they cannot be kept as they came; nothing of them was.
        """
        ...


class LibrarySink(Closing):
    """A collection that this process opens itself."""

    def __init__(self, collection: Collection) -> None:
        self.card = collection.base
        self._collection = collection

    @classmethod
    def open(
        cls, library: Library, collection: str, card: EncoderCard, encoder: str = ""
    ) -> LibrarySink:
        """Open a collection for an encoder, making it if it is new.

        Args:
            library: Where it is.
            collection: Its name.
            card: Card of the encoder, loaded.
            encoder: What loads it again, where that is not the card's id: a folder, say.

        Raises:
            WrongEncoder: it is there and belongs to another encoder.
            StoreBusy: another process has it open; write through that one (`ServiceSink`).
        """
        return cls(library.create(collection, card, encoder))

    def known(self, ids: Sequence[str]) -> dict[str, str]:
        """See `Sink.known`."""
        return self._collection.known(ids)

    def put(self, entries: Sequence[Entry]) -> None:
        """See `Sink.put`."""
        self._collection.add(entries)

    def update(self, items: Sequence[Item]) -> None:
        """See `Sink.update`."""
        self._collection.update(items)

    def of_sources(self, dataset: str, sources: Sequence[str]) -> list[Item]:
        """See `Sink.of_sources`."""
        where = Filter(dataset=(dataset,), source=tuple(sources))
        return [one.item for one in scroll_all(self._collection.store, where)]

    def remove(self, ids: Sequence[str]) -> None:
        """See `Sink.remove`."""
        self._collection.remove(ids)

    def change_cases(self, wanted: CaseRecordsWanted) -> int:
        """See `Destination.change_cases`."""
        return self._collection.cases.change(wanted, self._collection.store, "terminal")

    def build(self) -> BuildReport:
        """See `Sink.build`."""
        report = self._collection.build()
        prepare(self._collection)
        return report

    def close(self) -> None:
        """See `Sink.close`."""
        self._collection.close()


class ServiceSink(Closing):
    """A collection of a running service, over HTTP.

    A request that meets a broken connection or an overloaded service is sent again; writes
    change nothing the second time, so that is safe.

    Raises:
        WrongEncoder: the collection is there and belongs to another encoder.
        StoreDown: the service does not answer.
    """

    def __init__(
        self,
        base_url: str,
        collection: str,
        card: EncoderCard,
        *,
        encoder: str = "",
        api_key: str | None = None,
        client: httpx.Client | None = None,
        pause_s: float = PAUSE_S,
    ) -> None:
        self.card = card
        self.name = collection
        self._url = base_url.rstrip("/")
        self._pause_s = pause_s
        here = httpx.URL(base_url).host in {"127.0.0.1", "localhost", "::1"}
        self._client = client or httpx.Client(
            timeout=httpx.Timeout(60, connect=5), trust_env=not here
        )
        self._headers = {"X-API-Key": api_key} if api_key else {}
        self._at = f"/v1/collections/{quote(collection, safe='')}"
        try:
            query = f"?encoder={quote(encoder, safe='')}" if encoder else ""
            self._send("PUT", query, content=card.to_json(), kind="application/json")
        except BaseException:
            self.close()
            raise

    def known(self, ids: Sequence[str]) -> dict[str, str]:
        """See `Sink.known`."""
        found = self._send("POST", "/known", json={"ids": list(ids)})["known"]
        return {str(id): str(digest) for id, digest in found.items()}

    def put(self, entries: Sequence[Entry]) -> None:
        """See `Sink.put`."""
        if entries:
            content = make_shard_bytes(entries, self.card)
            self._send("PUT", "/shards", content=content, kind="application/vnd.apache.parquet")

    def update(self, items: Sequence[Item]) -> None:
        """See `Sink.update`."""
        if items:
            rows = [item.model_dump(mode="json") for item in items]
            self._send("PATCH", "/items", json={"items": rows})

    def of_sources(self, dataset: str, sources: Sequence[str]) -> list[Item]:
        """See `Sink.of_sources`."""
        found: list[Item] = []
        wanted: dict[str, object] = {"where": {"dataset": [dataset], "source": list(sources)}}
        while True:
            page = self._send("POST", "/items/page", json=wanted | {"limit": 1000})
            found += [Item.model_validate(one) for one in page["items"]]
            if page["next"] is None:
                return found
            wanted["after"] = page["next"]

    def remove(self, ids: Sequence[str]) -> None:
        """See `Sink.remove`."""
        self._send("POST", "/items/remove", json={"ids": list(ids)})

    def change_cases(self, wanted: CaseRecordsWanted) -> int:
        """See `Destination.change_cases`."""
        body = wanted.model_dump(mode="json", exclude_defaults=True)
        return int(self._send("POST", "/cases/records", json=body)["written"])

    def build(self) -> BuildReport:
        """See `Sink.build`; waits as long as the service needs."""
        return BuildReport(**self._send("POST", "/build", timeout=None))

    def close(self) -> None:
        """See `Sink.close`."""
        self._client.close()

    def _send(
        self,
        method: str,
        tail: str,
        *,
        content: bytes | str | None = None,
        kind: str | None = None,
        json: object | None = None,
        timeout: float | None = 60,
    ) -> dict[str, Any]:
        headers = self._headers | ({"Content-Type": kind} if kind else {})
        trouble = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(self._pause_s * 2 ** (attempt - 1))
            try:
                answer = self._client.request(
                    method,
                    self._url + self._at + tail,
                    content=content,
                    json=json,
                    headers=headers,
                    timeout=timeout,
                )
            except httpx.TransportError as error:
                trouble = f"{type(error).__name__}: {error}"
                continue
            if answer.status_code in {429, 502, 503, 504}:
                trouble = f"status {answer.status_code}: {_detail(answer)}"
                continue
            return self._read(answer)
        raise StoreDown(
            f"the service at {self._url} does not take the data ({trouble}); "
            f"tried {TRIES} times. Mend that, or start it again, then run the same command: it "
            "goes on where it stopped"
        )

    def _read(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.is_success:
            body: Mapping[str, Any] = answer.json() if answer.content else {}
            return dict(body)
        detail = _detail(answer)
        if answer.status_code == 409:
            wrong = WrongEncoder(self.name, "another make", self.card.title)
            wrong.add_note(f"The service says: {detail}")
            raise wrong
        if answer.status_code == 404:
            raise NoSuchCollection(self.name)
        if answer.status_code in {401, 403}:
            raise StoreError(f"the service at {self._url} refused the key: {detail}")
        raise StoreError(f"the service at {self._url} answered {answer.status_code}: {detail}")


def _detail(answer: httpx.Response) -> str:
    """The sentence of a problem+json answer, or the start of any other."""
    try:
        body = answer.json()
    except ValueError:
        return answer.text[:200] or answer.reason_phrase
    if isinstance(body, dict):
        return str(body.get("detail") or body.get("title") or body)[:500]
    return str(body)[:500]
