"""Answers for a person at a terminal, or as JSON lines for a program."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.schemas.answers import Answer, VoteAnswer


def for_people() -> bool:
    """Whether a person reads: standard output is a terminal."""
    return sys.stdout.isatty()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # no window: nothing has to be cut
    shown = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        number = column in {"score", "items", "share", "n"}
        whole = column in {"id", "name", "score"}
        shown.add_column(
            column, justify="right" if number else "left", overflow="ellipsis", no_wrap=whole
        )
    for row in rows:
        shown.add_row(*("" if value is None else str(value) for value in row))
    console.print(shown)


def hits_table(answer: Answer) -> None:
    """Print neighbours, what they are based on, and warnings."""
    rows = [
        (
            at,
            f"{hit.score:.4f}",
            hit.item.label,
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
    from ui.look.tables import count

    say(
        f"From {count(answer.patients, 'patient')}, {count(answer.sources, 'source')} and "
        f"{count(answer.sites, 'site')}; patient exclusion: {answer.patient_exclusion}."
    )
    for warning in answer.warnings:
        say(f"[yellow]![/] {warning}")
    say(f"[dim]{answer.disclaimer}[/]")


def warn(answer: Answer) -> None:
    """Print the warnings of an answer to standard error, where its hits are piped on."""
    for warning in answer.warnings:
        print(f"warning: {warning}", file=sys.stderr)  # noqa: T201 (the terminal's own output)


def vote_table(found: VoteAnswer) -> None:
    """Print the shares of a vote, then its neighbours."""
    rows = [(label, f"{share:.1%}") for label, share in found.vote.shares.items()]
    head = f"{found.vote.label}" if found.sure else "not sure"
    table(f"Vote: {head}", ("label", "share"), rows)
    say(found.reason)
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
