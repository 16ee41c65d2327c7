"""The rate limit: so many calls of one caller, and the answer says how many are left."""

from __future__ import annotations

import pytest

from search.ratelimit import RateLimit


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


def test_an_empty_limit_is_none() -> None:
    limit = RateLimit("")

    assert all(limit.call("a").allowed for _ in range(1000))
    assert limit.call("a").headers == {}


@pytest.mark.parametrize("wrong", ["many", "10", "10/fortnight", "-1/second"])
def test_what_is_not_a_limit_is_refused_with_an_example(wrong: str) -> None:
    with pytest.raises(ValueError, match="expected a rate limit like 100/second"):
        RateLimit(wrong)
