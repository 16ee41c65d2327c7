"""What the documentation, the benchmarks and the images name exists: paths, names, commands."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import typer
from live import REPOSITORY

from ui.cli.main import app

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *REPOSITORY.glob("docs/*.md")]
FILES = [
    *PAGES,
    REPOSITORY / "Makefile",
    *REPOSITORY.glob("benchmarks/*"),
    *REPOSITORY.glob("docker/*"),
]
PARTS = "encoder|search|ingest|train|ui"
MADE = {"docker/.env"}
"""Named as a file that the reader makes."""


def label(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def texts(files: list[Path]) -> Iterator[tuple[str, str]]:
    for path in files:
        if path.is_file():
            yield label(path), path.read_text()


def commands(word: str) -> list[str]:
    """Every command that begins with a word: in a block of code, between backticks, in a script."""
    found = set()
    for _, text in texts(PAGES):
        joined = re.sub(r"\\\n\s*", "", text)
        for line in joined.splitlines() + re.findall(r"`([^`\n]+)`", joined):
            plain = re.sub(r"^(?:[A-Z_]+=\S+ )*(?:uv run )?", "", line.partition("#")[0].strip())
            if plain.startswith(f"{word} "):
                found.add(plain)
    return sorted(found)


@pytest.mark.parametrize("path", [path for path in FILES if path.is_file()], ids=label)
def test_every_path_that_is_named_exists(path: Path) -> None:
    named = re.findall(
        rf"(?<![\w/.:<{{-])((?:{PARTS}|tests|docs|benchmarks|docker)/[\w./*-]+)", path.read_text()
    )
    missing = {
        one
        for one in (found.rstrip(".") for found in named)
        if one not in MADE and not list(REPOSITORY.glob(one))
    }

    assert not missing


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_every_link_leads_to_a_file(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())

    assert not [link for link in links if not (path.parent / link).exists()]


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_every_name_of_the_code_that_is_imported_or_quoted_exists(path: Path) -> None:
    text = path.read_text()
    names = set(re.findall(rf"`((?:{PARTS})(?:\.\w+)+)", text))
    for module, imported in re.findall(rf"from ((?:{PARTS})[\w.]*) import ([\w, ]+)", text):
        names |= {f"{module}.{one.strip()}" for one in imported.split(",") if one.strip()}

    assert not [name for name in sorted(names) if not exists(name)]


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    at = len(parts)
    while at > 1 and not (REPOSITORY.joinpath(*parts[:at]).with_suffix(".py")).is_file():
        at -= 1
    if at == 1:
        return REPOSITORY.joinpath(*parts).is_dir()
    held: object = import_module(".".join(parts[:at]))
    for part in parts[at:]:
        held = getattr(held, part, None)
    return held is not None


@pytest.mark.parametrize("words", commands("hemaseek"))
def test_a_command_of_hemaseek_has_the_verb_and_the_options_that_are_named(words: str) -> None:
    verb = typer.main.get_command(app)
    for word in words.split()[1:]:
        below = getattr(verb, "commands", {})
        if not below:
            break
        if word.isupper() or "/" in word:  # `hemaseek X`
            return
        assert word in below or word.startswith("-"), words
        verb = below.get(word, verb)
    known = {option for one in verb.params for option in (*one.opts, *one.secondary_opts)}

    assert set(re.findall(r"(?<=\s)--[\w-]+", words)) <= known | {"--help", "--version"}


def module_runs() -> dict[str, set[str]]:
    """The options that are named, by `MODULE` or `MODULE VERB`."""
    runs: dict[str, set[str]] = {}
    for words in commands("python"):
        found = re.match(r"python -m ([\w.]+(?: [a-z]+)?)(?= -|$)", words)
        if found:
            runs.setdefault(found[1], set()).update(re.findall(r"(?<=\s)--[\w-]+", words))
    return runs


@pytest.mark.parametrize("run", module_runs())
def test_a_module_that_is_run_has_the_options_that_are_named(run: str) -> None:
    assert exists(run.partition(" ")[0])
    if not module_runs()[run]:
        return  # it may take none, and would begin its work
    done = subprocess.run(
        [sys.executable, "-m", *run.split(), "--help"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert not [one for one in module_runs()[run] if one not in done.stdout]


def test_every_script_that_is_run_exists() -> None:
    scripts = [words.split()[1] for words in commands("python")]

    assert not [one for one in scripts if one.endswith(".py") and not (REPOSITORY / one).is_file()]


def test_every_target_of_make_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))

    assert {words.split()[1] for words in commands("make")} <= targets
