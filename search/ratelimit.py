"""How many calls one caller may make in a while."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Whether one call may go on, and what its answer says of the limit."""

    allowed: bool
    headers: dict[str, str]


class RateLimit:
    """A sliding window per caller, counted in this process.

    Args:
        text: For instance `100/second` or `12000/minute`; empty for no limit.

    Raises:
        ValueError: not a limit.
    """

    def __init__(self, text: str) -> None:
        from limits import parse
        from limits.storage import MemoryStorage
        from limits.strategies import SlidingWindowCounterRateLimiter

        try:
            self._limit = parse(text) if text.strip() else None
        except ValueError as error:
            raise ValueError(
                f"expected a rate limit like 100/second or 12000/minute, got {text!r}"
            ) from error
        self._window = SlidingWindowCounterRateLimiter(MemoryStorage())

    def call(self, who: str) -> Verdict:
        """Count one call of a caller, and say whether it may go on."""
        if self._limit is None:
            return Verdict(True, {})
        allowed = self._window.hit(self._limit, who)
        state = self._window.get_window_stats(self._limit, who)
        wait = max(1, math.ceil(state.reset_time - time.time()))
        headers = {
            "RateLimit-Limit": str(self._limit.amount),
            "RateLimit-Remaining": str(max(0, state.remaining)),
            "RateLimit-Reset": str(wait),
        }
        return Verdict(allowed, headers if allowed else {**headers, "Retry-After": str(wait)})
