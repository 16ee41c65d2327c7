"""Every command of docs/papers.md is one that the product takes: verb, options and their values."""

from __future__ import annotations

import argparse
import re
import runpy
import sys
from importlib import import_module
from typing import Any, Never

import pytest
import typer
from live import REPOSITORY
from pydantic_settings import CliApp
from routes import operations
from torch.distributed import run as launcher

from ui.cli.main import app

PAGE = (REPOSITORY / "docs" / "papers.md").read_text(encoding="utf-8")
BEGINS = ("python ", "torchrun ", "hemaseek ", "... --")


class Parsed(Exception):
    """A command line was understood; what it would do is not begun."""


def options(words: list[str]) -> dict[str, list[str]]:
    """The values of each option; under no name what comes before them."""
    named: dict[str, list[str]] = {"": []}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word
            named[name] = []
        else:
            named[name].append(word)
    return named


def commands() -> list[str]:
    """Every command of the tables; `... --option` is the last whole one with another option."""
    found: list[str] = []
    whole: dict[str, list[str]] = {}
    for line in PAGE.partition("## Presets")[0].splitlines():
        column = line.split("|")[2] if line.startswith("|") else ""
        for text in re.findall(r"`([^`]+)`", column):
            if not text.startswith(BEGINS):
                continue
            named = options(text.removeprefix("... ").split())
            if text.startswith("... "):
                named = whole | {name: some for name, some in named.items() if name}
            else:
                whole = named
            found.append(" ".join(word for one, some in named.items() for word in (one, *some)))
    return list(dict.fromkeys(one.strip() for one in found))


def understand(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Never:
    """Parse a command as it would be at its start."""
    if words[0] == "hemaseek":
        verb, rest = typer.main.get_command(app), words[1:]
        while below := getattr(verb, "commands", {}):
            verb, rest = below[rest[0]], rest[1:]
        verb.make_context(words[1], rest)
        raise Parsed
    if words[0] == "torchrun":  # it takes `--start` for its own without `--`
        given = launcher.parse_args(words[1:])
        words = ["-m", given.training_script, *given.training_script_args]
    if "-m" in words:
        name, *rest = words[words.index("-m") + 1 :]
        import_module("train.__main__" if name == "train" else name).main(rest)
    parse = argparse.ArgumentParser.parse_args

    def parsed(self: Any, *given: Any) -> Never:
        parse(self, *given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(sys, "argv", words[1:])
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "benchmarks"), *sys.path])
    runpy.run_path(str(REPOSITORY / words[1]), run_name="__main__")
    raise AssertionError(f"{words[1]} ended without reading its options")


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_page_is_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = command.split()
    whole = CliApp.run

    def parsed(model: Any, cli_args: Any = None, **more: Any) -> Never:
        whole(model, cli_args=cli_args, cli_cmd_method_name="none of its own", **more)
        raise Parsed

    monkeypatch.setattr(CliApp, "run", parsed)
    with pytest.raises(Parsed):
        understand(words, monkeypatch)


def test_the_page_has_a_command_for_each_row_that_promises_one() -> None:
    assert len(commands()) > 35
    assert sum(command.startswith("hemaseek") for command in commands()) > 4


def test_every_route_of_the_page_exists() -> None:
    named = re.findall(r"`(GET|PUT|POST|DELETE) (/v1/[^`?]+)", PAGE)
    paths = {(method, re.sub(r"{\w+}", "NAME", path)) for method, path, _ in operations()}

    assert len(named) >= 3
    assert not [one for one in named if (one[0], re.sub(r"[A-Z]{4,}", "NAME", one[1])) not in paths]
