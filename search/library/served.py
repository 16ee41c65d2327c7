"""The served version of every collection, kept open and changed over when another is served."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from weakref import WeakValueDictionary

from search.errors import NoSuchCollection, StoreBusy
from search.library.collection import Collection
from search.library.library import Library

WAIT_S = 10.0
"""How long a change waits for a version that another handle still has open."""
AGAIN_S = 1.0
"""After a change that failed, the next try."""


class OpenCollections:
    """The collections of a library that a service has open.

    A change of `current.json`, whoever made it, is seen at the next question. The new version
    is opened beside the old one, which answers until it is ready; then new questions get the
    new version. Questions under way keep the old handle, and with the last of them it closes:
    the handle's own reference count decides, so no route can forget to close it.
    """

    def __init__(
        self, library: Library, prepare: Callable[[Collection], None] | None = None
    ) -> None:
        """`prepare` is called with a newly opened version before it is served."""
        self._library = library
        self._prepare = prepare
        self._open: dict[str, Collection] = {}
        self._stamps: dict[str, tuple[int, int, int]] = {}
        self._handles: WeakValueDictionary[str, Collection] = WeakValueDictionary()
        self._changing: dict[str, threading.Thread] = {}
        self._not_before: dict[str, float] = {}
        self._lock = threading.RLock()
        self._closed = False
        self.trouble: dict[str, str] = {}
        """Why a collection was not changed over, by its name; empty where all is well."""

    def get(self, name: str) -> Collection | None:
        """The handle that answers now; `None` if the collection is not open."""
        collection = self._open.get(name)
        if collection is not None and collection.versions.stamp() != self._stamps[name]:
            self._follow(name)
        return collection

    def __setitem__(self, name: str, collection: Collection) -> None:
        """Keep a collection open."""
        with self._lock:
            self._stamps[name] = (0, 0, 0)  # looked at again at the next question
            self._open[name] = collection
            self._handles[collection.key] = collection

    def values(self) -> Iterator[Collection]:
        """Every handle that answers now."""
        return iter(list(self._open.values()))

    def clear(self) -> None:
        """Close everything, and change over no more."""
        with self._lock:
            self._closed = True
            under_way = list(self._changing.values())
        for thread in under_way:
            thread.join()
        self._open.clear()
        for collection in list(self._handles.values()):
            collection.close()

    def follow(self, name: str) -> Collection:
        """The served version, open when this returns: for whoever has just switched it.

        Raises:
            NoSuchCollection: the collection is not open.
            StoreError: it cannot be opened; the old one answers on.
        """
        self._change_over(name, wait=True)
        collection = self._open.get(name)
        if collection is None:
            raise NoSuchCollection(name, list(self._open))
        return collection

    def _follow(self, name: str) -> None:
        with self._lock:
            if (
                self._closed
                or name in self._changing
                or time.monotonic() < self._not_before.get(name, 0.0)
            ):
                return
            thread = threading.Thread(target=self._in_background, args=(name,), daemon=True)
            self._changing[name] = thread
        thread.start()

    def _in_background(self, name: str) -> None:
        try:
            self._change_over(name, wait=False)
            self.trouble.pop(name, None)
        except Exception as error:  # whatever it is, the old version answers on
            self.trouble[name] = f"{type(error).__name__}: {error}"
            self._not_before[name] = time.monotonic() + AGAIN_S
        finally:
            with self._lock:
                self._changing.pop(name, None)

    def _change_over(self, name: str, *, wait: bool) -> None:
        if wait and (thread := self._changing.get(name)) is not None:
            thread.join()
        collection = self._open.get(name)
        if collection is None:
            return
        stamp = collection.versions.stamp()
        served = collection.versions.pointer().version
        if served != collection.version.id:
            new = self._handle(name, served)
            if self._prepare is not None:
                self._prepare(new)
            with self._lock:
                self._open[name] = new
        self._stamps[name] = stamp

    def _handle(self, name: str, id: str) -> Collection:
        """The handle of a version: the one that questions still use, or a new one."""
        key = f"{name}@{id}"
        end = time.monotonic() + WAIT_S
        while True:
            there = self._handles.get(key)
            if there is not None:
                return there
            try:
                new = self._library.served(name, id)
            except (
                StoreBusy
            ):  # the last query that uses it is ending, or another process has it open
                if self._closed or time.monotonic() > end:
                    raise
                time.sleep(0.02)
                continue
            self._handles[new.key] = new
            return new
