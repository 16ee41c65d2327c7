from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from encoder import registry
from encoder.field_of_view import USUAL
from encoder.networks.lite import Conv, Lite
from train.data.source import DataError
from train.shipped import loop, start
from train.shipped import run as shipped
from train.shipped.card import costly, model_card
from train.shipped.config import DefaultConfig
from train.shipped.recipes import RECIPES
from train.shipped.report import beats_colour, evaluate_all
from train.shipped.run import MORE, REFUSED, main, run, trained


@pytest.fixture(name="cells")
def _cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with red and blue cells in the sets' places, and a toy recipe."""
    rng = np.random.default_rng(0)

    def drawn(folder: Path, names: list[str], side: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for at, name in enumerate(names):
            colour = ((200, 40, 40), (40, 40, 200))[at % 2]
            image = np.clip(np.array(colour) + rng.integers(-30, 31, (side, side, 3)), 0, 255)
            Image.fromarray(image.astype(np.uint8)).save(folder / name)

    data = tmp_path / "data"
    for name, codes in (("pbc", ("SNE", "LY")), ("bmc", ("NGS", "LYT"))):
        for offset, code in enumerate(codes):
            files = [f"{code}_{at}.jpg" for at in range(48)]
            drawn(data / name / "cells" / code, files[offset::2], 32)
    bccd = data / "bccd"
    drawn(bccd / "JPEGImages", [f"BloodImage_{at:05d}.jpg" for at in range(24)], 480)
    (bccd / "Annotations").mkdir()
    box = "<bndbox><xmin>200</xmin><ymin>200</ymin><xmax>260</xmax><ymax>260</ymax></bndbox>"
    lines = [",Image,Category"]
    for at in range(24):
        text = f"<annotation><object><name>WBC</name>{box}</object></annotation>"
        (bccd / "Annotations" / f"BloodImage_{at:05d}.xml").write_text(text)
        lines.append(f"{at},{at},{('NEUTROPHIL', 'LYMPHOCYTE')[at % 2]}")
    (bccd / "wbc_subtypes.csv").write_text("\n".join(lines))
    drawn(data / "attri" / "fields", [f"{at}.jpg" for at in range(24)], 386)
    rows = [
        f"fields/{at}.jpg,27,{('Neutrophil', 'Lymphocyte')[at % 2]},9,9,40,40" for at in range(24)
    ]
    head = "path,patient,label,x,y,width,height"
    (data / "attri" / "cells_27.csv").write_text("\n".join([head, *rows]))
    toy = replace(
        RECIPES["cpu"], id="toy-s", minutes=0.02, px=32, input_px=32, dim=8, batch=8, warmup=1
    )
    monkeypatch.setitem(RECIPES, "toy", toy)
    monkeypatch.setattr(shipped, "network", lambda recipe: shipped.blank(recipe))
    return tmp_path


def _config(cells: Path, **given: Any) -> DefaultConfig:
    settings: dict[str, Any] = {
        "recipe": "toy", "root": cells / "data", "work": cells / "work", "sets": ("pbc", "bmc"),
        "reports": cells / "reports", "weights": cells / "weights", "threads": 1, "minutes": None,
    }  # fmt: skip
    return DefaultConfig(**(settings | given))


def test_one_command_packs_trains_evaluates_and_writes_what_it_found(cells: Path) -> None:
    config = _config(cells)
    said: list[str] = []

    assert run(config, said.append) == 0  # two sets of four: nothing is exported

    folder = cells / "work" / "toy-without-chula-aslan"
    record = json.loads((folder / "record.json").read_text())
    assert set(record["abroad"]) == {"bccd", "bccd, index PBC alone", "attri, patient 27", "sites"}
    assert set(record["codecs"]) == {"quality 50"}
    assert record["training"]["steps"] > 0
    assert record["training"]["sets"] == {"pbc": 36, "bmc": 48}
    assert not (cells / "weights").exists()
    encoder = registry.load(str(folder / "encoder"), device="cpu")
    assert encoder.card.fingerprint == record["fingerprint"]
    assert encoder.card.field_of_view_um == 23.0
    assert encoder.card.fields_um == USUAL
    text = model_card(record, {"bmc left out": record})
    for part in ("## Trained on", "CC BY 4.0", "## Limits", "robustness index", "### bmc left out"):
        assert part in text


def test_a_laboratory_that_was_left_out_gives_the_queries(cells: Path) -> None:
    config = _config(cells, sets=("pbc",), steps=("pack", "train"))
    assert run(config) == 0
    folder = cells / "made"
    trained(config, folder)

    record = evaluate_all(config, folder, lambda text: None)

    assert record["abroad"]["bmc"]["queries"] == 48


def test_a_slice_that_ends_in_time_asks_for_the_next_one_and_goes_on(cells: Path) -> None:
    config = _config(cells, steps=("pack", "train"), minutes=1e-6, views=32)

    assert run(config) == MORE
    first = torch.load(config.run_folder / "last.pt", weights_only=True)
    assert run(config.model_copy(update={"minutes": None})) == 0
    second = torch.load(config.run_folder / "last.pt", weights_only=True)

    assert second["step"] > first["step"] > 0
    assert second["spent"] > first["spent"]


def test_what_does_not_beat_colours_is_not_exported(
    cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(cells, steps=("export",))
    monkeypatch.setattr(DefaultConfig, "ships", property(lambda self: True))
    config.run_folder.mkdir(parents=True)
    (config.run_folder / "record.json").write_text(json.dumps(_record((0.7, 0.7))))
    said: list[str] = []

    assert run(config, said.append) == REFUSED
    assert "does not beat colours" in said[0]


def _record(own: tuple[float, float]) -> dict[str, Any]:
    def rows(pair: tuple[float, float]) -> list[dict[str, Any]]:
        return [{"method": "20-NN", "weighted_f1": pair[0], "balanced_accuracy": pair[1]}]

    encoders = {"colour": rows((0.8, 0.7)), "x": rows(own)}
    return {"encoder": "x", "sets": {"pbc, held-out quarter": {"encoders": encoders}}}


def test_both_scores_must_be_above_those_of_colours() -> None:
    assert beats_colour(_record((0.81, 0.71)))
    assert not beats_colour(_record((0.81, 0.70)))
    assert not beats_colour(_record((0.79, 0.71)))


def test_what_leaves_something_out_is_kept_apart_and_never_exported(tmp_path: Path) -> None:
    whole = DefaultConfig(work=tmp_path)
    for given in ({"sets": ("pbc",)}, {"but_batch": "51-222"}, {"left_out": ("noise",)}):
        config = DefaultConfig(work=tmp_path, **given)  # type: ignore[arg-type]
        assert config.run_folder != whole.run_folder
        assert not config.ships
    assert whole.ships


def test_an_unknown_recipe_or_part_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="gpu"):
        DefaultConfig(recipe="huge")
    with pytest.raises(ValidationError, match="saturation"):
        DefaultConfig(left_out=("colours",))


def test_the_command_line_reads_lists(cells: Path) -> None:
    words = ["--recipe", "toy", "--steps", '["pack"]', "--sets", '["pbc"]']
    folders = ["--root", str(cells / "data"), "--work", str(cells / "work")]

    assert main([*words, *folders]) == 0
    assert (cells / "work" / "packs" / "pbc-224.json").is_file()


def test_published_weights_fit_and_give_what_timm_gives() -> None:
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    ours = Lite(8).eval()

    start.imagenet(ours, _published(theirs.state_dict()))

    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = theirs.forward_features(x).flatten(2).transpose(1, 2)
        assert (ours.forward_features(x) - expected).abs().max() < 1e-3
    assert all(part.gain is not None for part in ours.modules() if isinstance(part, Conv))


def _published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """In the order of `efficientnet_lite_pytorch`: each convolution, then its batch norm."""
    named: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        parts = name.split(".")
        layer = ".".join(parts[:-1])
        kind = "_conv" if tensor.ndim == 4 else "_bn" if "bn" in layer else "_fc"
        named[f"{kind}{layer}.{parts[-1]}"] = tensor
    return named


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(DataError, match="shapes differ"):
        start.imagenet(Lite(8), {"_conv.weight": torch.zeros(1, 1, 1, 1)})


def test_the_gpu_recipe_trains_and_exports_at_toy_size(
    cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = replace(
        RECIPES["gpu-vit"], id="toy-vit", minutes=0.02, px=28, input_px=28, dim=8, batch=4, warmup=1
    )
    monkeypatch.setitem(RECIPES, "toy", toy)
    config = _config(cells, sets=("pbc",), steps=("pack", "train"))

    assert run(config) == 0
    card = trained(config, cells / "made")

    assert (card.dim, card.input_px, card.patch_px) == (8, 28, 14)
    encoder = registry.load(str(cells / "made"), device="cpu")
    assert encoder.embed([np.zeros((40, 40, 3), np.uint8)]).shape == (1, 8)


def test_frozen_parts_keep_their_weights(cells: Path) -> None:
    config = _config(cells, steps=("pack", "train"))
    run(config)
    state = torch.load(config.run_folder / loop.LAST, weights_only=True)
    gains = [name for name in state["classifier"] if name.endswith("stem.gain")]

    assert [state["classifier"][name].unique().tolist() for name in gains] == [[1.0]]


def test_a_shift_that_costs_too_much_is_a_limit_in_words() -> None:
    losses = [
        {"shift": name, "lost": {"weighted_f1": lost}}
        for name, lost in (("hue +10 %", 0.2), ("brightness -10 %", 9.51))
    ]

    (line,) = costly(losses)

    assert "brightness -10 % lose 9.5 points" in line
