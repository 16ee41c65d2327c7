"""A fingerprint changes exactly when the vectors do, and a card survives its file."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from encoder.card import NOT_IN_FINGERPRINT, CardError, EncoderCard, FieldsUm

CARD = EncoderCard(id="a-s", architecture="vit", dim=384, patch_px=14)
OTHER: dict[str, Any] = {
    "id": "b", "architecture": "cnn", "dim": 768, "input_px": 448, "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0), "resample": "bilinear", "pooling": "mean", "patch_px": 16,
    "weights_sha256": "0" * 64, "pos_embed_interp": "bicubic", "engine": "int8",
    "fields_um": FieldsUm(white=25.0, red=12.0),
    "adapted": "align 0123456789abcdef", "parts": (128, 256),
    "stain": "macenko-1", "field_of_view_um": 25.0, "licence": "MIT", "source": "x", "notes": "y",
}  # fmt: skip


def test_a_title_tells_a_stain_normalisation() -> None:
    plain, after = CARD.title, replace(CARD, stain="macenko-1").title
    assert plain == f"a-s ({CARD.fingerprint})"
    assert after.startswith("a-s after macenko-1 (")


@pytest.mark.parametrize("name", [field.name for field in fields(EncoderCard)])
def test_a_fact_is_in_the_fingerprint_unless_it_changes_no_vector(name: str) -> None:
    changed = replace(CARD, **{name: OTHER[name]})
    assert (changed.fingerprint == CARD.fingerprint) == (name in NOT_IN_FINGERPRINT)


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    assert CARD.fingerprint == "2d631d2d4d8e80ad"


def test_a_card_survives_its_file(tmp_path: Any) -> None:
    card = replace(
        CARD, **{name: value for name, value in OTHER.items() if name not in ("input_px", "dim")}
    )
    (tmp_path / "card.json").write_text(card.to_json(), encoding="utf-8")
    assert EncoderCard.read(tmp_path / "card.json") == card


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "one JSON object, got list"),
        ('{"id": "x", "architecture": "y"}', "dim"),
        ('{"id": "x", "architecture": "y", "dim": 1, "colour": 3}', "unknown fields"),
    ],
)
def test_a_file_that_is_no_card_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(CardError, match=message):
        EncoderCard.from_json(text)


def test_a_card_edited_by_hand_is_refused() -> None:
    facts = json.loads(CARD.to_json())
    facts["mean"] = [0.5, 0.5, 0.5]
    with pytest.raises(CardError, match="edited by hand"):
        EncoderCard.from_json(json.dumps(facts))


@pytest.mark.parametrize(
    "change", [{"id": ""}, {"dim": 0}, {"input_px": 0}, {"input_px": 225}, {"std": (1.0, 0.0, 1.0)}]
)
def test_a_card_that_does_not_hold_together_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(CardError):
        replace(CARD, **change)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"dim": 1.5}, "dim must be a whole number"),
        ({"dim": 1e30}, "dim must be a whole number"),
        ({"dim": True}, "dim must be a whole number"),
        ({"dim": 10**9}, "dim must be a whole number"),
        ({"input_px": -1}, "input_px must be a whole number"),
        ({"patch_px": 0}, "patch_px must be a whole number"),
        ({"mean": [float("inf"), 0.0, 0.0]}, "mean must be three finite numbers"),
        ({"mean": [float("nan"), 0.0, 0.0]}, "mean must be three finite numbers"),
        ({"mean": "abc"}, "mean must be three finite numbers"),
        ({"std": [1.0, 1.0]}, "std must be three finite numbers"),
        ({"std": [1.0, 0.0, 1.0]}, "std must be positive"),
        ({"id": "x" * 900_000}, "id must have at most 500 characters"),
        ({"id": "a\0b"}, "no control characters"),
        ({"id": ["a"]}, "id must be a text"),
        ({"architecture": None}, "architecture must be a text"),
        ({"resample": "nearest"}, "resample must be one of"),
        ({"pooling": "max"}, "pooling must be one of"),
        ({"field_of_view_um": float("inf")}, "field_of_view_um must be positive"),
        ({"fields_um": {"white": 0, "red": 12}}, "fields_um must be two lengths"),
        ({"fields_um": {"white": 25}}, "missing .* 'red'"),
        ({"fields_um": 25}, "fields_um must be two lengths"),
    ],
)
def test_a_card_is_checked_whole_before_anything_keeps_it(facts: Any, message: str) -> None:
    plain = {"id": "x", "architecture": "y", "dim": 4}
    with pytest.raises(CardError, match=message):
        EncoderCard.from_json(json.dumps(plain | facts))


def test_deep_json_is_refused_like_any_other() -> None:
    with pytest.raises(CardError, match="is not JSON"):
        EncoderCard.from_json("[" * 100_000)
