from __future__ import annotations

import pytest

from encoder import registry
from ui.cli.doctor import _newer


def test_a_collection_of_an_older_shipped_encoder_is_offered_a_reindex(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "default_encoder", lambda: "hemaseek-s")

    words = _newer("hemaseek-xs", "marrow")

    assert "stays readable" in words
    assert "hemaseek reindex --collection marrow --encoder hemaseek-s" in words


def test_the_default_and_other_peoples_encoders_are_offered_nothing() -> None:
    assert _newer(registry.default_encoder(), "cells") == ""
    assert _newer("dinobloom-s", "cells") == ""
