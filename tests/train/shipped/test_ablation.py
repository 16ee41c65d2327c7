from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from encoder.contract import Vectors
from train.shipped import ablation
from train.shipped.data import Pictures
from train.shipped.loop import Classifier
from train.shipped.recipes import RECIPES
from train.shipped.run import blank

LABELS = {
    "pbc": ("SNE", "LY"),
    "chula": ("normal", "teardrop"),
    "aslan": ("rbc", "wbc"),
    "bmc": ("NGS", "LYT"),
    "bccd": ("neutrophil", "lymphocyte"),
    "attri": ("Neutrophil", "Lymphocyte"),
}


def _set(name: str, data: Path, packs: Path) -> Pictures:
    """Twenty-four red and as many blue pictures; of Chula half in each of two batches."""
    images = torch.zeros(48, 32, 32, 3, dtype=torch.uint8)
    images[:24, :, :, 0] = 200
    images[24:, :, :, 2] = 200
    labels = tuple(label for label in LABELS[name] for _ in range(24))
    return Pictures(name, images, labels, 30.0, ("a", "b") * 24 if name == "chula" else ())


@pytest.fixture(name="toy", autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPES["cpu"], minutes=0.005, px=32, input_px=32, dim=8, batch=8, warmup=1)
    monkeypatch.setitem(RECIPES, "toy", recipe)
    monkeypatch.setattr(ablation, "pictures", _set)
    monkeypatch.setattr(ablation, "network", blank)


def test_each_run_is_scored_on_what_it_did_not_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = ablation.runs()
    monkeypatch.setattr(ablation, "runs", lambda parts: [runs[2], runs[1]])

    assert ablation.main(["--recipe", "toy", "--but-batch", "b", "--work", str(tmp_path)]) == 0

    table = (tmp_path / "ablation" / "table.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in table.splitlines()]
    assert lines[0]["left out"] == "zoom"
    assert len(lines) == 2
    for line in lines:
        assert line["views"] > 0
        for name in ("bccd", "bmc", "attri", "chula"):
            assert all(0 <= score <= 100 for score in line[name])
        assert 0 <= line["sites"]["robustness"] <= 1


def test_a_run_of_so_many_views_is_scored_on_a_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    whole, runs = ablation.embedded, ablation.runs(("hue",))

    def embedded(classifier: Classifier, cells: Pictures, px: int) -> Vectors:
        seen.append(len(cells.labels))
        return whole(classifier, cells, px)

    monkeypatch.setattr(ablation, "embedded", embedded)
    monkeypatch.setattr(ablation, "runs", lambda parts: runs[1:2])
    words = ["--recipe", "toy", "--but-batch", "b", "--work", str(tmp_path)]

    assert ablation.main([*words, "--views", "20", "--most", "30", "--px", "32"]) == 0

    (line,) = (tmp_path / "ablation" / "table.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["views"] == 24
    assert json.loads(line)["left out"] == "nothing, with reversed gradient 0.1"
    assert max(seen) == 30
    assert [name for name, _ in runs][2:] == ["hue", "nothing, another seed"]


def test_the_batch_that_gives_queries_is_not_learned_from(tmp_path: Path) -> None:
    config = ablation.DefaultConfig(recipe="toy", but_batch="b", work=tmp_path)

    learned, queries = ablation.left_out(config)

    assert set(next(one for one in learned if one.name == "chula").sources) == {"a"}
    assert set(next(one for one in queries if one.name == "chula").sources) == {"b"}
    assert "bmc" not in {one.name for one in learned}


def test_without_a_batch_to_leave_out_it_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--but-batch"):
        ablation.left_out(ablation.DefaultConfig(recipe="toy", work=tmp_path))
