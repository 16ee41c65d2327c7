"""Designed states: each says what is wrong and what to do, and escapes text from outside."""

from __future__ import annotations

import pytest

from search.client.transport import ServiceDown, ServiceError
from ui.look.states import TITLES, TO_DO, down, empty, failed


@pytest.mark.parametrize("status", sorted(TITLES))
def test_a_refusal_says_what_happened_and_what_to_do(status: int) -> None:
    shown = failed(ServiceError(status, "Title", "the thing was refused"))

    assert TITLES[status] in shown
    assert "The thing was refused." in shown
    assert TO_DO[status].split("`")[0].strip() in shown
    assert 'role="alert"' in shown


def test_an_unknown_refusal_keeps_the_words_of_the_service() -> None:
    assert "I am a teapot" in failed(ServiceError(418, "I am a teapot", ""))


def test_a_service_that_is_down_is_shown_with_its_address() -> None:
    shown = down(ServiceDown("http://here:1"))

    assert "http://here:1" in shown
    assert 'role="alert"' in shown


def test_messages_are_escaped() -> None:
    assert "<script>" not in failed(ServiceError(404, "x", "<script>alert(1)</script>"))
    assert "<script>" not in empty("<script>", "<script>", "<script>")
