"""What the operator sees of the service: request ids, logs without patients, metrics."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import ref

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from search.library.collection import Collection

REQUEST_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
"""What is taken over from a caller's X-Request-ID; anything else is replaced."""
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Seconds."""
FIELDS = {
    "request_id",
    "callers_id",
    "method",
    "route",
    "status",
    "seconds",
    "caller",
    "collection",
    "k",
    "hits",
    "error",
    "where",
    "collections",
    "version",
    "signal",
    "audit_seq",
    "audit_head",
}
"""All that a log line may say: no file names, no filter values, no addresses, no messages."""


def callers_id(came: str | None) -> str | None:
    """The id that a caller gave its request, where it is short and plain; else `None`."""
    return came if came and REQUEST_ID.fullmatch(came) else None


@dataclass
class Seen:
    """Which state of a collection an answer is from, so that two answers can be told to agree."""

    _of: dict[str, tuple[ref[Collection], int, bool]] = field(default_factory=dict)
    """Not the handles themselves: a job must not keep the version open that it replaces."""

    def note(self, collection: Collection) -> None:
        """The answer is going to be from this collection, as it is from now on."""
        now = (ref(collection), collection.revision, collection.settled)
        self._of.setdefault(collection.key, now)

    def words(self) -> str | None:
        """`VERSION.STATE`; `VERSION.STATE-STATE` where it was written to meanwhile, so that a part
        of the answer may be from before; `None` where it is from none or from several."""
        if len(self._of) != 1:
            return None
        ((held, before, settled),) = self._of.values()
        collection = held()
        if collection is None:
            return None
        now, whole = collection.revision, settled and collection.settled
        same = whole and now == before
        return f"{collection.version.id}.{before}" + ("" if same else f"-{now}")


class _Stderr(logging.Handler):
    """Writes to the standard error that the process was started with."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.__stderr__ is not None:
            sys.__stderr__.write(self.format(record) + "\n")
            sys.__stderr__.flush()


def make_log(level: str, handler: logging.Handler | None = None) -> structlog.stdlib.BoundLogger:
    """A log of JSON lines, from a level on; to standard error by default."""
    plain = logging.Logger("hemaseek.service", level.upper())
    plain.addHandler(handler or _Stderr())
    log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        plain,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            only_known_fields,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return log


def only_known_fields(_log: object, _method: str, event: Any) -> Any:
    """Drop every field that is not in the list, whoever logged it."""
    kept = FIELDS | {"event", "level", "timestamp"}
    return {name: value for name, value in event.items() if name in kept}


def where_raised(error: BaseException) -> list[str]:
    """The frames of an error as `file:line`, without its message, which may hold anything."""
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    return [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in frames]


class _Sizes(Collector):
    """Items by collection, read when metrics are."""

    def __init__(self, sizes: Callable[[], dict[str, int]]) -> None:
        self._sizes = sizes

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "hemaseek_collection_items", "Items in a collection.", labels=["collection"]
        )
        for name, size in self._sizes().items():
            family.add_metric([name], size)
        yield family


class Metrics:
    """Counters and latencies of one application. No label holds an id or a value."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "hemaseek_request_seconds",
            "Time until the answer began.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._requests = Counter(
            "hemaseek_requests",
            "Answers.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._now = Gauge(
            "hemaseek_requests_in_progress", "Calls now in work.", registry=self._registry
        )

    def began(self) -> None:
        """A call came in."""
        self._now.inc()

    def ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """A call was answered. `route` is the template, never the path."""
        self._now.dec()
        self._seconds.labels(method, route).observe(seconds)
        self._requests.labels(method, route, str(status)).inc()

    def text(self, sizes: Callable[[], dict[str, int]]) -> bytes:
        """Everything in the Prometheus text format, with the sizes that the caller may see."""
        shown = CollectorRegistry()
        shown.register(_Sizes(sizes))
        return generate_latest(self._registry) + generate_latest(shown)
