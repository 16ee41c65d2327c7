"""Expected errors at the terminal: one sentence on standard error, exit status 1."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = {
    "torch": "torch",
    "timm": "torch",
    "torchvision": "torch",
    "openvino": "encoder",
    "cv2": "encoder",
    "qdrant_edge": "search",
    "qdrant_client": "search",
    "fastapi": "search",
    "uvicorn": "search",
    "pyarrow": "search",
    "skimage": "ingest",
    "openslide": "ingest",
    "ray": "ray",
    "cellpose": "cellpose",
    "instanseg": "instanseg",
    "sklearn": "search",
    "peft": "train",
    "faiss": "gpu",
    "streamlit": "ui",
    "h5py": "formats",
    "anndata": "formats",
    "highdicom": "formats",
    "umap": "atlas",
}
"""The extra that brings a package."""


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """Turn the errors that a user can mend into a sentence; let the others be seen whole."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        extra = EXTRAS.get(missing)
        if extra is None:
            raise
        refuse(
            f"this needs {missing}, which is not installed: run `make install EXTRA={extra}` "
            f"(or `uv sync --inexact --extra {extra}`)"
        )
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        if not expected(error):
            raise
        refuse(in_words(error))


def in_words(error: Exception) -> str:
    """An error as a sentence; those of pydantic name the field, what was wrong, and what came."""
    problems = getattr(error, "errors", None)
    if not type(error).__module__.startswith("pydantic") or not callable(problems):
        return str(error)
    from search.text import complaints

    return complaints(problems(include_url=False))


def expected(error: Exception) -> bool:
    """Whether an error is one of ours, written for the person who reads it."""
    own = {"encoder", "search", "ingest", "train", "ui"}
    of_settings = type(error).__module__.startswith("pydantic")
    return of_settings or any(
        kind.__module__.split(".")[0] in own for kind in type(error).__mro__ if kind is not object
    )


def refuse(text: str) -> None:
    """Say it, and leave with status 1."""
    from ui.cli.output import complain

    complain(text)
    sys.exit(1)
