"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from search.library.library import Library
    from search.settings import Settings


SECTIONS = {
    "Search": ("search", "vote", "refine", "cases", "export"),
    "Library": (
        *("demo", "ingest", "ingest-features", "jobs", "quarantine", "undo", "samples"),
        *("versions", "reindex", "adapt", "rollback", "prune", "reconcile", "snapshot", "restore"),
    ),
    "Evaluate": ("evaluate", "calibrate", "trust", "mil"),
    "Operate": ("serve", "page", "doctor", "encoders", "keys", "audit", "capacity"),
}
"""The commands as the help groups them; a new one that is in none comes under "More"."""


class Grouped(TyperGroup):
    """The command `hemaseek`: its help in sections, and `--json` anywhere on its line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands section by section."""
        named = {name for names in SECTIONS.values() for name in names}
        rest = tuple(name for name in self.list_commands(ctx) if name not in named)
        for title, names in {**SECTIONS, "More": rest}.items():
            found = [(name, one) for name in names if (one := self.get_command(ctx, name))]
            rows = [(name, one.get_short_help_str(56)) for name, one in found if not one.hidden]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `--json` out, wherever it stands."""
        from ui.cli.output import force_json

        force_json("--json" in args)
        return super().parse_args(ctx, [one for one in args if one != "--json"])


Split = Literal[
    "auto",
    "leave-one-patient-out",
    "leave-one-source-out",
    "leave-one-site-out",
    "one-site-in",
    "stratified",
    "temporal",
]
Weighting = Literal["uniform", "similarity", "softmax"]
GroupField = Literal["case", "patient", "source"]
BalanceField = Literal["site", "source", "patient", "dataset", "scanner"]
Adaptation = Literal[
    "align", "metric", "fuse", "align+metric", "fuse+align", "fuse+metric", "fuse+align+metric"
]
Origin = Literal["site", "scanner", "stain", "dataset"]
Distance = Literal["mean", "max_sim", "prototypes", "transport", "vlad", "composition", "learned"]
Pooling = Literal["abmil", "abmil_gated", "clam_sb", "transmil", "mean", "max"]
Task = Literal["class", "survival"]
ExportFormat = Literal["hdf5", "safetensors", "h5ad", "geojson", "dicom-sr"]
"""Words that options take: those of the wire models, which are too slow to import for a line of
help; a test holds the two to be equal."""


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
    from search.library.indexes import stores_at
    from search.library.library import Library

    settings = settings_for(library=library, collection=collection)
    make = stores_at(settings.qdrant_url, settings.qdrant_api_key)
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
