"""Answers for a person at a terminal, or as JSON lines for a program."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

    from search.schemas.answers import Answer, VoteAnswer


SHORT_ID = 8
"""Letters of an id that a narrow terminal shows; `--json` has the whole."""
_forced = False


def force_json(wanted: bool) -> None:
    """Print JSON lines although a person reads (`--json`), or no more."""
    global _forced
    _forced = wanted


def for_people() -> bool:
    """Whether a person reads: standard output is a terminal, and `--json` was not given."""
    return sys.stdout.isatty() and not _forced


def told(record: BaseModel, print_it: Callable[[Any], None]) -> None:
    """Print a record: for a person as `print_it` does, else as a line of JSON."""
    if for_people():
        print_it(record)
    else:
        print(record.model_dump_json())  # noqa: T201 (the terminal's own output)


def percent(job: Any) -> None:
    """Show on standard error how far a job is; `None` wipes that away."""
    if sys.stderr.isatty() and (job is None or job.total):
        sys.stderr.write("\r      \r" if job is None else f"\r{100 * job.done // job.total:3} % ")
        sys.stderr.flush()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # no window: nothing has to be cut
    shown = Table(
        title=escape(title), title_justify="left", header_style="bold", box=None, pad_edge=False
    )
    for column in columns:
        number = column in {"score", "items", "share", "n"}
        whole = column in {"id", "name", "score", "label"}
        shown.add_column(
            column, justify="right" if number else "left", overflow="ellipsis", no_wrap=whole
        )
    for row in fitted(columns, rows, console.width):
        shown.add_row(*map(escape, row))
    console.print(shown)


def fitted(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int
) -> list[tuple[str, ...]]:
    """The cells of a table as texts, ids shortened where the table is wider than the terminal.

    What a person reads, the label, is kept; an id is only copied, and `--json` has it whole.
    """
    texts = [tuple("" if value is None else str(value) for value in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    if sum(widths) + 2 * len(columns) <= width or "id" not in columns:
        return texts
    at = list(columns).index("id")
    return [
        (
            *row[:at],
            f"{row[at][:SHORT_ID]}…" if len(row[at]) > SHORT_ID else row[at],
            *row[at + 1 :],
        )
        for row in texts
    ]


def size(n: int) -> str:
    """A number of bytes as `du -h` says it."""
    value = float(n)
    for unit in ("B", "K", "M", "G"):
        if value < 1024:
            return f"{value:.0f}{unit}" if unit == "B" or value >= 10 else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}T"


def summary(facts: Mapping[str, Any], depth: int = 0) -> list[str]:
    """A record as lines for a person: names and values, lists as their number, nothing long."""
    lines = []
    for name, value in facts.items():
        head = f"{'  ' * depth}{name.replace('_', ' ')}"
        if value in (None, "", [], {}, ()):
            continue
        if isinstance(value, dict) and depth < MOST_DEPTH and len(value) <= MOST_VALUES:
            lines += [head, *summary(value, depth + 1)]
        elif isinstance(value, dict | list | tuple):
            plain = isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
            few = plain and len(value) <= MOST_LISTED
            lines.append(f"{head}  {', '.join(value) if few else f'{len(value):,}'}")
        elif isinstance(value, float):
            lines.append(f"{head}  {value:.4g}")
        elif name == "bytes":
            lines.append(f"{head}  {size(int(value))}")
        else:
            lines.append(f"{head}  {f'{value:,}' if type(value) is int else value}")
    return lines


MOST_DEPTH, MOST_LISTED, MOST_VALUES = 2, 6, 24
"""How deep a summary goes, how many words of a list and how many values of a record it shows."""


def hits_table(answer: Answer) -> None:
    """Print neighbours, what they are based on, and warnings."""
    rows = [
        (
            at,
            f"{hit.score:.4f}",
            hit.label,
            hit.item.case,
            hit.item.patient,
            hit.item.dataset,
            hit.item.id,
        )
        for at, hit in enumerate(answer.hits, 1)
    ]
    title = f"{answer.collection}: {answer.items} items, encoder {answer.encoder}"
    table(title, ("", "score", "label", "case", "patient", "dataset", "id"), rows)
    notes(answer)


def notes(answer: Answer) -> None:
    """Print the support of an answer and its warnings."""
    from rich.markup import escape

    from ui.look.gallery import aligned
    from ui.look.tables import count

    say(
        f"From {count(answer.patients, 'patient')}, {count(answer.sources, 'source')} and "
        f"{count(answer.sites, 'site')}; patient exclusion: {answer.patient_exclusion}."
    )
    if answer.looked_at is not None:
        say(answer.looked_at.words)
    if answer.alignment is not None:
        say(escape(aligned(answer.alignment)))
    for warning in answer.warnings:
        say(f"[yellow]![/] {escape(warning)}")
    say(f"[dim]{answer.disclaimer}[/]")


def warn(answer: Answer) -> None:
    """Print the warnings of an answer to standard error, where its hits are piped on."""
    for warning in answer.warnings:
        print(f"warning: {warning}", file=sys.stderr)  # noqa: T201 (the terminal's own output)


def vote_table(found: VoteAnswer) -> None:
    """Print the shares of a vote, then its neighbours."""
    from rich.markup import escape

    from ui.look.gallery import verdict, withheld

    shares = {} if withheld(found) else found.vote.shares
    rows = [(label, f"{share:.1%}") for label, share in shares.items()]
    head = verdict(found)
    table(f"Vote: {head}", ("label", "share"), rows)
    say(escape(found.reason))
    hits_table(found.answer)


def say(text: str) -> None:
    """Print a line with rich markup."""
    from rich.console import Console

    Console(highlight=False, soft_wrap=True).print(text)


def complain(text: str) -> None:
    """Print an error to standard error."""
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[bold red]error[/] {escape(text)}"
    )
