"""The commands `hemaseek keys` and `hemaseek audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ui.cli.options import LibraryOption
from ui.look.tables import count

if TYPE_CHECKING:
    from search.security.keys import Keys

keys = typer.Typer(help="API keys of the service.", no_args_is_help=True)
audit = typer.Typer(help="The audit log: who requested what.", no_args_is_help=True)


@keys.callback()
def _keys() -> None:
    """API keys of the service."""


@audit.callback()
def _audit() -> None:
    """The audit log: who requested what."""


@keys.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Whose it is: a person, a page, a machine.")],
    role: Annotated[
        list[str],
        typer.Option(help="read, write or admin; or COLLECTION:ROLE for one. Repeat for more."),
    ],
    library: LibraryOption = None,
) -> None:
    """Make a key and show it, once.

    Example: hemaseek keys add page --role cells:read
    """
    from search.security.keys import parse_roles

    stored = _key_file(library)
    key, text = stored.add(name, parse_roles(role))
    typer.echo(text)
    typer.echo(f"key {key.id} for {name}: this is the only time it is shown", err=True)


@keys.command("list")
def show(library: LibraryOption = None) -> None:
    """Show every key by its id, with its roles."""
    import json
    from dataclasses import asdict

    from ui.cli.output import for_people, table

    found = _key_file(library).all()
    if not for_people():
        for key in found:
            facts = asdict(key)
            del facts["hash"]
            typer.echo(json.dumps(facts))
        return
    rows = [
        (
            key.id,
            key.name,
            ", ".join(f"{name}:{role}" for name, role in key.roles.items()),
            key.made,
            f"revoked {key.revoked}" if key.revoked else "",
        )
        for key in found
    ]
    table("API keys", ("id", "name", "roles", "made", ""), rows)


@keys.command("revoke")
def revoke(
    id: Annotated[str, typer.Argument(help="Id of the key, as `keys list` shows it.")],
    library: LibraryOption = None,
) -> None:
    """Revoke a key; a running service refuses it from its next request on."""
    key = _key_file(library).revoke(id)
    typer.echo(f"revoked {key.id} ({key.name}) at {key.revoked}")


@audit.command("verify")
def check(
    head: Annotated[
        str | None, typer.Option(help="Hash of an earlier end of the log, kept elsewhere.")
    ] = None,
    library: LibraryOption = None,
) -> None:
    """Verify the whole log; exits 1 where a line was changed, removed or cut off."""
    from search.security.audit import verify
    from ui.cli.options import settings_for

    settings = settings_for(library=library)
    found = verify(settings.audit_folder, head)
    typer.echo(
        f"intact: {count(found.lines, 'line')} in {count(found.files, 'file')}; "
        f"the last is {found.head}"
    )
    if found.missing:
        typer.echo(
            f"warning: {count(found.missing, 'line')} missing at a start of the service, as the "
            "log itself says; a power cut takes at most those of its last second",
            err=True,
        )


def _key_file(library: Path | None) -> Keys:
    from search.security.keys import Keys
    from ui.cli.options import settings_for

    settings = settings_for(library=library)
    return Keys(settings.keys or settings.library / "keys.json")
