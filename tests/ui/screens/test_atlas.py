"""The page *Atlas*: what it says of the effect of a site, and one colour for each value."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from search.schemas.maps import BatchEffects
from ui.look.palette import CATEGORIES
from ui.screens.atlas import _kinds, verdict


def effects(share: float, expected: float, robustness: float | None) -> BatchEffects:
    return BatchEffects(
        field="site",
        items=100,
        asked=100,
        k=10,
        share=share,
        expected=expected,
        label_share=0.9,
        label_expected=0.2,
        robustness=robustness,
        silhouette_origin=0.0,
        silhouette_label=0.5,
        origins=(),
        notes=(),
    )


def test_little_effect_is_never_said_where_label_and_site_cannot_be_separated() -> None:
    assert "Little effect" in verdict(effects(0.52, 0.5, 0.9), "site")
    for found in (effects(1.0, 1.0, None), effects(0.97, 0.95, 0.9)):
        assert "cannot be told" in verdict(found, "site")
        assert "Little effect" not in verdict(found, "site")


def test_no_colour_stands_for_two_values() -> None:
    values = [f"label {at:02}" for at in range(30)]
    column = SimpleNamespace(values=values, codes=[*range(30), 0])
    found: Any = SimpleNamespace(columns={"label": column})

    _, kinds, _ = _kinds(found, "label")

    assert len({kind.colour for kind in kinds}) == len(kinds) == len(CATEGORIES) + 1
    assert kinds[-1].name == "22 more (highlight one)"
