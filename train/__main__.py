"""Train an encoder: `python -m train --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliPositionalArg,
    CliSubCommand,
    SettingsConfigDict,
)

from train.config import Cuts, TrainConfig, read_config
from train.presets import PRESETS


class Run(TrainConfig):
    """Train an encoder on unlabelled images, and export it.

    The same command, given again, goes on from the last checkpoint; after the last step it
    exports again. With several GPUs: torchrun --nproc-per-node 8 -m -- train run --shard ...
    """

    def cli_cmd(self) -> None:
        """Train."""
        _train(TrainConfig.model_validate(self.model_dump()))


class _Command(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Resume(_Command):
    """Run, or go on with, a run whose configuration was saved as JSON."""

    config: Path
    """A config.json."""
    max_minutes: float | None = Field(default=None, gt=0)
    """Stop cleanly at a checkpoint after so many minutes."""

    def cli_cmd(self) -> None:
        """Train."""
        config = read_config(self.config)
        _train(config.model_copy(update={"max_minutes": self.max_minutes}))


class Pack(Cuts):
    """Copy images into a few large files that are read faster than thousands of small ones."""

    data: CliPositionalArg[list[Path]]
    """Folders, CSV manifests or packed folders."""
    out: Path
    """Folder to make."""
    px: int | None = Field(default=None, ge=8)
    """Squash every image to this side and save it as JPEG; left out, files are copied unchanged."""
    quality: int = Field(default=95, ge=1, le=100)
    """Of those JPEGs."""

    def cli_cmd(self) -> None:
        """Pack."""
        from train.data.images import open_sources
        from train.data.packs import pack

        report = pack(open_sources(self.data, self), self.out, self.px, self.quality)
        print(
            f"{report.images} images, {report.bytes / 1e6:.1f} MB in {report.shards} shards; "
            f"{len(report.corrupt)} could not be read"
        )
        for title, reason in report.corrupt.items():
            print(f"  left out: {title}: {reason}")


class Export(_Command):
    """Export the best checkpoint of a run that stopped, or that the guards held back."""

    run: CliPositionalArg[Path]
    """Folder of the run."""
    force: bool = False
    """Even if it is worse than its parent."""

    def cli_cmd(self) -> None:
        """Export."""
        from train.dino.loop import export_best
        from train.dino.run import prepare

        config = read_config(self.run / "config.json")
        update: dict[str, Any] = {"out": self.run, "force": self.force or config.force}
        run = prepare(config.model_copy(update=update))
        run.feed.close()
        export_best(run)
        print(f"exported to {self.run}; load it with encoder.registry.load({str(self.run)!r})")


class Presets(_Command):
    """List the presets: source, values, and every deviation from the published code."""

    def cli_cmd(self) -> None:
        """Print them."""
        for name, preset in PRESETS.items():
            print(f"{name}: {preset.source}")
            for key, value in preset.values.items():
                print(f"    {key} = {value}")
            for line in preset.deviations:
                print(f"  - {line}")
            print()


class Smoke(_Command):
    """Train a tiny encoder on drawn cells, kill it, resume, export, load and evaluate it."""

    out: Path
    """A new folder."""

    def cli_cmd(self) -> None:
        """The whole way."""
        from train.smoke import smoke

        report = smoke(self.out, _say)
        print(f"smoke: {report.seconds:.0f} s, 1-NN accuracy {report.accuracy:.3f}")


class Command(BaseSettings):
    """Self-supervised training of the encoders that cells are searched with.

    Try it:     python -m train smoke --out /tmp/smoke
    Pack:       python -m train pack data/cells --out packed --px 224
    Train:      python -m train run --preset dinobloom --data packed --out runs/bloom
    On a CPU:   python -m train run --preset scratch --data packed --out runs/tiny
                --precision bf16 --max-minutes 60
    Go on:      python -m train resume --config runs/tiny/config.json

    A run's folder holds config.json (every setting), log.jsonl, checkpoint.pt (to go on from),
    best.pt, and at the end weights.safetensors, model.json and, last, card.json: its existence
    means that the run finished, and encoder.registry.load reads the folder.
    """

    model_config = SettingsConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        cli_prog_name="python -m train",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_enforce_required=True,
        nested_model_default_partial_update=False,
    )

    run: CliSubCommand[Run]
    """Train an encoder, or go on, and export it. `run --help` explains every setting."""
    resume: CliSubCommand[Resume]
    """Run, or go on with, a run whose settings are in a config.json."""
    pack: CliSubCommand[Pack]
    """Copy images into a few large files that are read faster than thousands of small ones."""
    export: CliSubCommand[Export]
    """Export the best checkpoint of a run that stopped, or that the guards held back."""
    presets: CliSubCommand[Presets]
    """List the presets with every deviation from the published code."""
    smoke: CliSubCommand[Smoke]
    """Train, kill, resume, export, load and evaluate a tiny encoder on drawn cells."""

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        CliApp.run_subcommand(self)


def _say(text: str) -> None:
    print(text, flush=True)


def _train(config: TrainConfig) -> None:
    import torch.distributed as dist

    from train.dino.loop import train

    try:
        outcome = train(config, _say)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    if outcome.exported:
        _say(f"exported to {config.out}")
    if outcome.refusal:
        sys.exit(3)


def main(arguments: list[str] | None = None) -> None:
    """The command line; `None` takes the process's arguments.

    Errors that say what to do are printed without a traceback and end with status 1.
    """
    from pydantic import ValidationError

    from encoder.contract import EncoderError
    from train.data.source import DataError
    from train.dino.checkpoint import CheckpointError

    try:
        CliApp.run(Command, cli_args=sys.argv[1:] if arguments is None else arguments)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc'][1:] or e['loc']))}: {e['msg']}" for e in error.errors()
        ]
        sys.exit("\n".join(lines))
    except (EncoderError, CheckpointError, DataError, FileNotFoundError) as error:
        sys.exit(str(error))
    except RuntimeError as error:
        if type(error).__module__.startswith(("train.", "ingest.")):  # a finder that is missing
            sys.exit(str(error))
        raise


if __name__ == "__main__":
    main()
