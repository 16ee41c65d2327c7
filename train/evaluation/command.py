"""What the commands of evaluation and training share: settings, words as options, JSON written."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from encoder.contract import EncoderError
from encoder.durable import replacing
from encoder.registry import Device
from train.data.datasets import BadDataset

Config = TypeVar("Config", bound=BaseModel)
LISTS = ("--data", "--encoders", "--ours", "-k")
"""Options that take several words."""


class Settings(BaseModel):
    """Where data lies, and where encoders run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    root: Path = Path(os.environ.get("HEMASEEK_DATA", "../shared/data"))
    """Where the named sets are; HEMASEEK_DATA if that is set."""
    device: Device = "auto"
    """Where encoders run."""


class Scoring(Settings):
    """Settings of an evaluation, which keeps vectors and writes its results."""

    cache: Path = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "hemaseek" / "vectors"
    """Where vectors are kept."""
    out: Path | None = None
    """Write the results here as JSON."""


def spread(words: Sequence[str], lists: Sequence[str] = LISTS) -> list[str]:
    """`--data a b` as the parser wants it: one JSON list per option."""
    out: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word not in lists:
            out.append(word)
            continue
        values: list[str] = []
        while at < len(words) and not words[at].startswith("-"):
            values.append(words[at])
            at += 1
        out += [word, json.dumps(values)]
    return out


def config_of(
    kind: type[Config], words: Sequence[str] | None, lists: Sequence[str] = LISTS
) -> Config:
    """The settings that a command line names; `None` takes the words of the process.

    Raises:
        SystemExit: with what is wrong.
    """
    from pydantic_settings import CliApp

    return CliApp.run(kind, cli_args=spread(sys.argv[1:] if words is None else words, lists))


def status_of(work: Callable[[], object]) -> int:
    """The exit status of a command; it ends in a sentence for a set or an encoder that is no use.

    Raises:
        SystemExit: with the sentence.
    """
    try:
        work()
    except (BadDataset, EncoderError, FileNotFoundError) as error:
        sys.exit(str(error))
    return 0


def write_json(path: Path, record: Any) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())
