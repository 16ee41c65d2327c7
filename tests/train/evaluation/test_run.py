from __future__ import annotations

import importlib
import json
from functools import partial
from io import StringIO

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from rich.console import Console

from encoder.registry import load
from search.evaluation.run import code_digest
from search.evaluation.splits import BadSplit
from train.data.datasets import BadDataset, folder
from train.evaluation import abmil, table
from train.evaluation.command import spread
from train.evaluation.run import (
    CODE,
    EvaluateConfig,
    evaluate,
    main,
    make_folds,
    run,
)


def _drawn(root, patients=10, cells=4, table=True):
    """Red and blue cells of ten patients in two batches; some cells have the wrong colour."""
    rng = np.random.default_rng(0)
    lines = ["path,label,patient,source"]
    for patient in range(patients):
        for cell in range(cells):
            label = "red" if patient % 2 else "blue"
            colour = np.array([200, 20, 20] if patient % 2 else [20, 20, 200])
            shades = colour + rng.integers(-15, 16, (10, 10, 3))
            name = f"{label}/{patient}-{cell}.png"
            (root / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(shades.astype(np.uint8)).save(root / name)
            lines.append(f"{name},{label},p{patient},batch{patient // 5}")
    if table:
        (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root


def _config(root, **given):
    words = {"resamples": 20, "cache": root / ".." / "cache", "encoders": ("colour",), **given}
    return EvaluateConfig(data=(f"folder:{root}",), **words)


def test_one_run_writes_everything_that_makes_its_numbers_repeatable(tmp_path):
    root, out = _drawn(tmp_path / "set"), tmp_path / "out.json"

    record = run(_config(root, k=(1, 3), out=out), Console(file=StringIO()))

    assert json.loads(out.read_text()) == json.loads(json.dumps(record))
    (one,) = record["sets"]
    assert (one["n"], one["classes"], one["unit"], one["patients"]) == (40, 2, "patient", True)
    assert one["split"] == "5-fold by patient"
    assert record["code_version"] == code_digest(CODE)
    (encoder,) = one["encoders"]
    assert encoder["fingerprint"] == load("colour").card.fingerprint
    assert [r["method"] for r in encoder["results"]] == ["1-NN", "3-NN", "linear probe"]
    for result in encoder["results"]:
        assert result["pooled"]["accuracy"] == 1.0
        assert result["intervals"]["accuracy"]["clusters"] == 10
        assert sum(fold["test"] for fold in result["per_fold"]) == 40
        assert result["recall"] == {"blue": 1.0, "red": 1.0}


def test_the_command_prints_the_papers_table_without_wrapping_it(tmp_path, capsys):
    root = _drawn(tmp_path / "set", table=False)
    words = ["--data", f"folder:{root}", "--encoders", "colour", "-k", "1", "20"]
    words += ["--cache", str(tmp_path / "cache"), "--resamples", "20"]

    assert main(words) == 0

    out = capsys.readouterr().out
    assert "### set: 40 cells, 2 classes, 5-fold by image" in out
    assert "| encoder | 1-NN wF1 / bAcc / Acc | 20-NN wF1 / bAcc / Acc | linear probe" in out
    assert "| colour | 100.0 ± 0.0 / 100.0 ± 0.0 / 100.0 ± 0.0 |" in out
    assert "[100.0, 100.0]" in out
    assert "no patient ids: the intervals are by image" in out


def test_a_batch_is_left_out_where_batches_are_known(tmp_path):
    labelled = folder(_drawn(tmp_path / "set"))

    name, folds = make_folds(labelled, _config(tmp_path / "set", split="leave-one-source-out"))

    assert name == "leave one source out"
    assert [fold.name for fold in folds] == ["batch0", "batch1"]


def test_one_batch_is_trained_on_and_the_gain_over_the_others_is_shown(tmp_path):
    root = _drawn(tmp_path / "set")
    config = _config(
        root, split="one-source-in", encoders=("colour", "measured"), ours=("measured",),
        probe=False, k=(1,),
    )  # fmt: skip

    record = run(config, Console(file=StringIO()))

    (one,) = record["sets"]
    assert one["split"] == "train on one source, test on each other"
    (result,) = one["encoders"][0]["results"]
    assert [fold["fold"] for fold in result["per_fold"]] == ["batch0 to batch1", "batch1 to batch0"]
    assert [encoder["ours"] for encoder in one["encoders"]] == [False, True]


def test_improvements_are_best_less_best_and_mean_less_mean():
    # RedDino, Table 1, 20-NN: 3.4 / 5.2 / 3.0 and 5.9 / 6.5 / 5.3 from the models' printed means
    others = ["66.2 66.9 67.5", "76.5 79.6 77.1", "76.1 78.9 76.8", "77.0 79.0 77.9",
              "77.2 78.5 77.9", "79.2 78.6 79.9", "76.4 74.8 77.4"]  # fmt: skip
    ours = ["80.0 82.6 80.4", "82.6 84.8 82.9", "81.6 81.9 81.9"]
    encoders = []
    for line in others + ours:
        means = {name: float(v) / 100 for name, v in zip(table.SHOWN, line.split(), strict=True)}
        encoders.append({"ours": line in ours, "results": [{"mean": means}]})

    best, mean = table.improvements(encoders)

    assert best == ["Improvement", "+3.4 / +5.2 / +3.0"]
    assert mean[0] == "Avg improvement"
    printed = zip(mean[1].split(" / "), (5.9, 6.5, 5.3), strict=True)
    assert all(abs(float(value) - wanted) < 0.15 for value, wanted in printed)
    assert table.improvements([one | {"ours": False} for one in encoders]) == []


def test_a_gain_needs_encoders_on_both_sides():
    with pytest.raises(ValidationError, match="ours names pbc, which is not among the encoders"):
        EvaluateConfig(encoders=("colour",), ours=("pbc",))
    with pytest.raises(ValidationError, match="ours names every encoder"):
        EvaluateConfig(encoders=("colour",), ours=("colour",))


def test_a_split_by_cell_is_refused_where_cells_share_a_patient(tmp_path):
    labelled = folder(_drawn(tmp_path / "set"))

    with pytest.raises(BadSplit, match="would part a patient of set; use --split grouped"):
        make_folds(labelled, _config(tmp_path / "set", split="stratified"))


def test_classes_without_a_training_cell_are_told_and_both_means_given(tmp_path):
    root = _drawn(tmp_path / "set")
    lines = (root / "manifest.csv").read_text().replace("red,p9", "late,p9")
    (root / "manifest.csv").write_text(lines)

    record = run(
        _config(root, split="leave-one-source-out", probe=False),
        Console(file=StringIO()),
    )

    assert "fold batch1: in test but not in train: late" in record["sets"][0]["notes"]
    (result, *_) = record["sets"][0]["encoders"][0]["results"]
    assert result["recall"]["late"] == 0.0
    assert result["answerable"]["balanced_accuracy"] > result["pooled"]["balanced_accuracy"]
    assert any("without the cells whose class" in note for note in table.notes(record["sets"][0]))


def test_fewer_cells_than_neighbours_is_told(tmp_path):
    labelled = folder(_drawn(tmp_path / "set", cells=1))
    config = _config(tmp_path / "set", k=(20,), probe=False)
    vectors = np.eye(10, dtype=np.float32)

    (result,) = evaluate(vectors, labelled, make_folds(labelled, config)[1], config)

    assert "fold 1: only 8 training cells, so 8 voted" in result.notes


def test_a_limit_is_stated(tmp_path):
    record = run(
        _config(_drawn(tmp_path / "set"), limit=24, probe=False, folds=2),
        Console(file=StringIO()),
    )

    assert record["sets"][0]["n"] == 24
    assert "a subset of 24 of 40 cells" in record["sets"][0]["notes"]


def test_bags_are_scored_by_patient_with_attention_per_cell(tmp_path, monkeypatch):
    monkeypatch.setattr(abmil, "MilConfig", partial(abmil.MilConfig, epochs=3))
    root = _drawn(tmp_path / "set")

    seen = StringIO()

    record = run(_config(root, bags=True, probe=False, folds=2), Console(file=seen))

    encoder = record["sets"][0]["encoders"][0]
    for bags in (encoder["abmil"], encoder["abmil_gated"]):
        assert (bags["unit"], bags["n"]) == ("patient", 10)
        assert len(bags["per_fold"]) == 2
        assert set(bags["attention"]) == {f"p{at}" for at in range(10)}
        assert all(sum(w) == pytest.approx(1, abs=1e-4) for w in bags["attention"].values())
    assert encoder["abmil"]["attention"] != encoder["abmil_gated"]["attention"]
    assert "ABMIL by patient" in seen.getvalue()
    assert "gated ABMIL by patient" in seen.getvalue()


def test_bags_without_patients_are_refused(tmp_path):
    root = _drawn(tmp_path / "set", table=False)

    with pytest.raises(BadDataset, match="needs patients, and set names none"):
        run(_config(root, bags=True, probe=False), Console(file=StringIO()))


def test_lists_on_the_command_line_may_be_words():
    assert spread(["--data", "a", "b", "--seed", "3", "-k", "1", "20"]) == [
        "--data",
        '["a", "b"]',
        "--seed",
        "3",
        "-k",
        '["1", "20"]',
    ]


def test_the_config_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(ValidationError):
        EvaluateConfig(folds=1)
    with pytest.raises(ValidationError):
        EvaluateConfig(neighbours=3)


@pytest.mark.parametrize("module", ["run", "few_shot", "faithful", "shift"])
def test_a_set_that_is_not_there_ends_each_command_in_a_sentence(module):
    command = importlib.import_module(f"train.evaluation.{module}").main

    with pytest.raises(SystemExit, match="unknown data set 'pcb'"):
        command(["--data", "pcb"])


def test_help_tells_every_option_in_words(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])

    out = " ".join(capsys.readouterr().out.split())
    for name, field in EvaluateConfig.model_fields.items():
        assert f"-{name.replace('_', '-')}" in out
        assert " ".join(field.description.split())[:30] in out
