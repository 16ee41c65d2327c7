"""How many calls one caller may make in a while."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limits import RateLimitItem


@dataclass(frozen=True)
class Verdict:
    """Whether one call may go on, and the limit as its answer states it."""

    allowed: bool
    headers: dict[str, str]


class RateLimit:
    """A sliding window per caller, counted in this process.

    The calls of this window of the clock, and the share of those of the window before it that
    still lies within one length of now. (`limits` reads the text; its own counter in memory
    starts a thread at nearly every call, which costs more than the rest of the middleware.)

    Args:
        text: For instance `100/second` or `12000/minute`; empty for no limit.

    Raises:
        ValueError: not a limit.
    """

    def __init__(self, text: str) -> None:
        from limits import parse

        try:
            self._limit: RateLimitItem | None = parse(text) if text.strip() else None
        except ValueError as error:
            raise ValueError(
                f"expected a rate limit like 100/second or 12000/minute, got {text!r}"
            ) from error
        self._turn = Lock()
        self._window = 0
        self._counts: Counter[str] = Counter()
        self._before: Counter[str] = Counter()

    def call(self, who: str) -> Verdict:
        """Count one call of a caller, and decide whether it may go on."""
        if self._limit is None:
            return Verdict(True, {})
        length, amount = self._limit.get_expiry(), self._limit.amount
        window, within = divmod(time.time(), length)
        with self._turn:
            self._turn_to(int(window))
            before = self._before[who]
            weighted = before * (1 - within / length)
            allowed = math.floor(weighted + self._counts[who]) < amount
            if allowed:
                self._counts[who] += 1
            used = math.floor(weighted + self._counts[who])
        # a call of the window before goes out of sight every length / before seconds
        wait = (length - within) % (length / before) if before else length - within
        headers = {
            "RateLimit-Limit": str(amount),
            "RateLimit-Remaining": str(max(0, amount - used)),
            "RateLimit-Reset": str(max(1, math.ceil(wait))),
        }
        if allowed:
            return Verdict(True, headers)
        return Verdict(False, {**headers, "Retry-After": headers["RateLimit-Reset"]})

    def _turn_to(self, window: int) -> None:
        """Go on to a window of the clock; whoever was silent in the last one is forgotten."""
        if window != self._window:
            self._before = self._counts if window == self._window + 1 else Counter()
            self._counts, self._window = Counter(), window
