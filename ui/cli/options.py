"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from search.library.library import Library
    from search.settings import Settings


def by_records(run: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters of a dataclass type are given field by field on the command line.

    The annotations and defaults of the fields are those of the options.
    """
    own = signature(run, eval_str=True).parameters
    records: dict[str, Any] = {
        name: one.annotation for name, one in own.items() if is_dataclass(one.annotation)
    }

    @wraps(run)
    def command(**given: Any) -> None:
        for name, record in records.items():
            given[name] = record(**{one.name: given.pop(one.name) for one in fields(record)})
        run(**given)

    options: list[Parameter] = []
    for name, one in own.items():
        record = records.get(name)
        options += signature(record, eval_str=True).parameters.values() if record else [one]
    command.__signature__ = Signature(  # type: ignore[attr-defined]
        [one.replace(kind=Parameter.KEYWORD_ONLY) for one in options]
    )
    return command


EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder", help="Encoder: a name of `hemaseek encoders`, or an exported folder."
    ),
]


def settings_for(**given: Any) -> Settings:
    """The settings of the environment, with what was given on the command line over them."""
    from search.settings import Settings

    return Settings(**{name: value for name, value in given.items() if value is not None})


LibraryOption = Annotated[
    Path | None,
    typer.Option("--library", help="Folder of the library. [HEMASEEK_LIBRARY, else ./library]"),
]


CollectionOption = Annotated[
    str | None, typer.Option("--collection", help="Collection. [HEMASEEK_COLLECTION, else cells]")
]


def opened(library: Path | None, collection: str | None) -> tuple[Library, str, Settings]:
    """The library that the settings name, and the collection that is meant."""
    from search.library.indexes import embedded, on_server
    from search.library.library import Library

    settings = settings_for(library=library, collection=collection)
    key = settings.qdrant_api_key
    make = (
        on_server(settings.qdrant_url, key.get_secret_value() if key else None)
        if settings.qdrant_url
        else embedded
    )
    return Library.open(settings.library, make), settings.collection, settings


Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where", help="Only items with FIELD=VALUE; repeat for more.", metavar="FIELD=VALUE"
    ),
]


def conditions(where: list[str] | None) -> dict[str, list[str]]:
    """`FIELD=VALUE` words as the fields of a filter.

    Raises:
        BadParameter: another form, or a field that there is not.
    """
    from search.schemas.filters import Filter

    words: dict[str, list[str]] = {}
    for condition in where or []:
        name, sign, value = condition.partition("=")
        if not sign or not value:
            raise typer.BadParameter(
                f"expected FIELD=VALUE, got {condition!r}", param_hint="--where"
            )
        words.setdefault(name, []).append(value)
    known = Filter.model_fields
    for name in words:
        if name not in known:
            raise typer.BadParameter(
                f"no field {name!r}; there are {', '.join(known)}", param_hint="--where"
            )
    return words
