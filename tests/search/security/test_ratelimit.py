"""The rate limit: so many calls of one caller, and the answer says how many are left."""

from __future__ import annotations

import threading
import time

import pytest

from search.security.ratelimit import RateLimit


def test_the_calls_of_one_caller_are_counted_and_those_of_another_are_not() -> None:
    limit = RateLimit("3/hour")

    verdicts = [limit.call("a") for _ in range(4)]

    assert [verdict.allowed for verdict in verdicts] == [True, True, True, False]
    assert [verdict.headers["RateLimit-Remaining"] for verdict in verdicts] == ["2", "1", "0", "0"]
    assert limit.call("b").allowed


def test_a_refusal_says_when_to_come_back() -> None:
    limit = RateLimit("1/hour")
    limit.call("a")

    headers = limit.call("a").headers

    assert headers["RateLimit-Limit"] == "1"
    assert 1 <= int(headers["Retry-After"]) <= 3600
    assert headers["Retry-After"] == headers["RateLimit-Reset"]


def test_the_calls_of_the_window_before_count_by_the_share_that_is_still_in_sight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit, now = RateLimit("10/minute"), 6000.0
    monkeypatch.setattr(time, "time", lambda: now)
    assert [limit.call("a").allowed for _ in range(11)] == [True] * 10 + [False]

    now = 6060 + 33.0  # 4.5 of the ten are still in sight
    verdicts = [limit.call("a") for _ in range(7)]
    assert [verdict.allowed for verdict in verdicts] == [True] * 6 + [False]
    assert verdicts[0].headers["RateLimit-Remaining"] == "5"
    assert verdicts[6].headers["Retry-After"] == "3"  # then 4 of them are

    now = 6200.0  # a window without a call lies between
    assert limit.call("a").headers["RateLimit-Remaining"] == "9"


def test_counting_starts_no_thread() -> None:
    limit, before = RateLimit("100/second"), set(threading.enumerate())

    for at in range(200):
        limit.call(f"key {at % 3}")

    assert set(threading.enumerate()) <= before


def test_an_empty_limit_is_none() -> None:
    limit = RateLimit("")

    assert all(limit.call("a").allowed for _ in range(1000))
    assert limit.call("a").headers == {}


@pytest.mark.parametrize("wrong", ["many", "10", "10/fortnight", "-1/second"])
def test_what_is_not_a_limit_is_refused_with_an_example(wrong: str) -> None:
    with pytest.raises(ValueError, match="expected a rate limit like 100/second"):
        RateLimit(wrong)
