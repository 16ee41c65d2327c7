from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from train.__main__ import main
from train.config import TrainConfig

BASE = {"preset": "scratch", "data": (Path("x"),), "out": Path("y")}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 0}, "greater than or equal to 1"),
        ({"step": 9}, "Extra inputs"),
        ({"weights": (1.0, 2.0)}, "1 sources need 1 weights, got 2"),
        ({"dino_weight": 0, "ibot_weight": 0}, "nothing is left to learn"),
        ({"global_scale": (0.9, 0.3)}, "low <= high"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, says):
    with pytest.raises(ValidationError, match=says):
        TrainConfig.model_validate(BASE | changes)


def test_the_configuration_cannot_be_changed():
    config = TrainConfig.model_validate(BASE)
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3


def test_only_settings_that_change_the_numbers_make_another_run():
    config = TrainConfig.model_validate(BASE)
    assert config.same_run(config.model_copy(update={"max_minutes": 3.0, "workers": 2})) == []
    assert config.same_run(config.model_copy(update={"lr": 0.5, "seed": 4})) == ["seed", "lr"]


def test_every_setting_has_help():
    for name, field in TrainConfig.model_fields.items():
        assert field.description, name


def test_the_help_reads_as_documentation(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for word in ("smoke", "pack", "presets", "card.json", "--preset scratch"):
        assert word in shown


def test_a_wrong_setting_on_the_command_line_is_named_without_a_traceback():
    with pytest.raises(SystemExit, match="steps: Input should be greater"):
        main(["run", "--data", "x", "--out", "y", "--steps", "0"])
