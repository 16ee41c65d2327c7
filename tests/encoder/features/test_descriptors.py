from __future__ import annotations

import numpy as np
import pytest

from encoder.features.descriptors import (
    GLASS,
    GUIDE,
    HUE,
    MOST_GAIN,
    SIDE,
    WEIGHTS,
    Cast,
    darkest_of_three,
    evened_out,
    find_nucleus,
    fit,
    in_a_row,
    measure,
    without,
)
from train.smoke import KINDS, draw_cell


def drawn(kind: str, seed: int = 0) -> np.ndarray:
    return draw_cell(kind, SIDE, np.random.default_rng(seed))


@pytest.fixture(name="many", scope="module")
def _many() -> list[dict[str, np.ndarray]]:
    return [measure(drawn(kind, seed)) for kind in KINDS for seed in range(6)]


def test_every_group_that_counts_is_measured_and_finite() -> None:
    found = measure(drawn("neutrophil"))
    assert found.keys() >= WEIGHTS.keys()
    assert all(np.isfinite(found[name]).all() for name in WEIGHTS)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_quarter_turn_and_a_mirror_change_nothing_that_matters(turn: int) -> None:
    image = drawn("eosinophil")
    turned = np.ascontiguousarray(np.rot90(image, turn)[:, ::-1])
    before, after = measure(image), measure(turned)
    for name in ("middle", "nucleus", "shape", "gradients", "nucleus colour"):
        assert before[name] == pytest.approx(after[name], abs=0.06), name


def test_the_nucleus_of_a_drawn_lymphocyte_is_found_in_the_middle() -> None:
    green = drawn("lymphocyte")[..., 1].astype(np.float32) / 255
    nucleus = find_nucleus(green)
    rows, columns = np.nonzero(nucleus)
    assert 0.02 < nucleus.mean() < 0.5
    assert abs(rows.mean() / SIDE - 0.5) < 0.15
    assert abs(columns.mean() / SIDE - 0.5) < 0.15


def turned(image: np.ndarray, by: float) -> np.ndarray:
    return without(image, Cast(turn=by, gain=1))


def brightened(image: np.ndarray, factor: float) -> np.ndarray:
    return np.rint(image.astype(np.float64) * factor).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("by", [-0.3, -0.1, 0.02, 0.1])
def test_a_shift_of_all_hues_is_taken_back(by: float) -> None:
    image = drawn("neutrophil")
    before, after = measure(image), measure(turned(image, by))
    for name in WEIGHTS:
        assert before[name] == pytest.approx(after[name], abs=0.25), name
    turn = evened_out(turned(image, by))[1].turn - evened_out(image)[1].turn
    assert (turn + by + 0.5) % 1 == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_shift_of_brightness_is_taken_back(kind: str, factor: float) -> None:
    image = drawn(kind)
    before, after = measure(image), measure(brightened(image, factor))
    untaken = measure(brightened(image, factor), even=False)
    raw = measure(image, even=False)

    def apart(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
        return float(np.linalg.norm(in_a_row(a, {"middle": 1}) - in_a_row(b, {"middle": 1})))

    assert apart(before, after) < 0.6 * apart(raw, untaken)


def test_the_nucleus_has_one_hue_and_the_glass_one_brightness() -> None:
    image = drawn(next(iter(KINDS)))
    for dimmed in (image, brightened(image, 0.8)):
        seen, cast = evened_out(dimmed)
        assert np.array_equal(seen, without(dimmed, cast))
        again = evened_out(seen)[1]
        assert (again.turn + 0.5) % 1 == pytest.approx(0.5, abs=0.01)
        assert np.percentile(seen[..., 1], 90) == pytest.approx(255 * GLASS, abs=1)
        assert again.gain == pytest.approx(1, abs=0.01)
    assert 0 < HUE < 1


@pytest.mark.parametrize(("grey", "gain"), [(0, MOST_GAIN), (120, MOST_GAIN), (255, GLASS)])
def test_grey_images_are_not_turned_and_gain_is_bounded(grey: int, gain: float) -> None:
    plain = np.full((SIDE, SIDE, 3), grey, np.uint8)
    assert evened_out(plain)[1] == Cast(0.0, pytest.approx(gain))
    assert np.array_equal(turned(plain, 0.3), plain)


def test_the_darkest_of_three_classes_is_the_cut_of_scikit_image(
    rng: np.random.Generator,
) -> None:
    from skimage.filters import threshold_multiotsu

    values = np.concatenate([rng.normal(at, 0.03, 2000) for at in (0.2, 0.55, 0.85)])
    expected = threshold_multiotsu(values, 3)[0]
    assert darkest_of_three(values.astype(np.float32)) == pytest.approx(expected, abs=0.02)


def test_two_grey_values_have_no_three_classes() -> None:
    assert darkest_of_three(np.array([0.1, 0.9] * 8, np.float32)) is None


def test_a_guide_is_of_numbers_that_are_measured() -> None:
    assert WEIGHTS.keys() >= GUIDE.keys()


def test_an_empty_picture_has_no_nucleus_and_still_gives_numbers() -> None:
    blank = np.full((40, 50, 3), 230, np.uint8)
    found = measure(blank)
    assert not found["shape"].any()
    assert all(np.isfinite(found[name]).all() for name in WEIGHTS)


def test_fitted_vectors_have_length_one_and_tell_drawn_kinds_apart(
    many: list[dict[str, np.ndarray]],
) -> None:
    table = np.stack([in_a_row(one) for one in many])
    widths = {name: len(many[0][name]) for name in WEIGHTS}

    vectors = fit(table, widths, dim=8).vectors(table)

    assert vectors.shape == (len(many), 8)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    kinds = np.repeat(np.arange(len(KINDS)), 6)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    assert (kinds[cosines.argmax(axis=1)] == kinds).mean() > 0.9


def test_no_group_counts_for_more_because_its_numbers_are_larger(
    many: list[dict[str, np.ndarray]],
) -> None:
    widths = {name: len(many[0][name]) for name in WEIGHTS}
    table = np.stack([in_a_row(one) for one in many])
    louder = [one | {"rings": one["rings"] * 1000} for one in many]
    loud = np.stack([in_a_row(one) for one in louder])

    plain, scaled = fit(table, widths, 6).vectors(table), fit(loud, widths, 6).vectors(loud)

    assert scaled @ scaled.T == pytest.approx(plain @ plain.T, abs=1e-2)
