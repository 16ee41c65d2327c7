"""The command `hemaseek`: quick to start, honest in its exit status, plain in its refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import uvicorn
from command import hemaseek
from fastapi.testclient import TestClient
from live import Live
from typer.testing import CliRunner

from ui.cli.main import app as command

HEAVY = ("torch", "timm", "numpy", "pydantic", "rich", "qdrant_edge", "fastapi", "streamlit", "PIL")


@pytest.fixture(name="library", scope="module")
def _library(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of its own, made by the command from the drawn cells."""
    folder = tmp_path_factory.mktemp("cli") / "library"
    made = hemaseek("ingest", str(live.folder / "manifest.csv"), "--library", str(folder))
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["stored"] > 0
    return folder


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['hemaseek', '--help']\n"
        "from ui.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "ingest" in done.stdout
    assert done.stderr.strip() == "[]"


def test_encoders_are_listed_as_json_lines_when_piped() -> None:
    done = hemaseek("encoders")

    cards = {card["id"]: card for card in map(json.loads, done.stdout.splitlines())}
    assert {"colour", "dinov2-s", "dinobloom-g", "reddino-l"} <= set(cards)
    assert cards["colour"]["licence"] == "Apache-2.0"


def test_ingesting_again_changes_nothing(live: Live, library: Path) -> None:
    again = hemaseek("ingest", str(live.folder / "manifest.csv"), "--library", str(library))

    summary = json.loads(again.stdout)
    assert again.returncode == 0
    assert (summary["stored"], summary["updated"], summary["index"]) == (0, 0, None)


def test_a_search_prints_a_json_line_for_each_neighbour(live: Live, library: Path) -> None:
    image = next((live.folder / "cells" / "monocyte").glob("*.png"))

    done = hemaseek("search", str(image), "-k", "4", "--library", str(library))
    hits = [json.loads(line) for line in done.stdout.splitlines()]

    assert len(hits) == 4
    assert hits[0]["score"] >= hits[3]["score"]
    assert "patient is unknown" in done.stderr
    by_id = hemaseek("search", hits[0]["item"]["id"], "-k", "2", "--library", str(library))
    assert hits[0]["item"]["id"] not in by_id.stdout


def test_a_filter_on_the_command_line_is_applied(live: Live, library: Path) -> None:
    image = next((live.folder / "cells" / "monocyte").glob("*.png"))

    done = hemaseek(
        *("search", str(image), "-k", "4", "--library", str(library), "--where", "label=basophil")
    )

    labels = {json.loads(line)["item"]["label"] for line in done.stdout.splitlines()}
    assert labels == {"basophil"}


def test_a_vote_is_one_line_of_json(live: Live, library: Path) -> None:
    image = next((live.folder / "cells" / "eosinophil").glob("*.png"))

    found = json.loads(hemaseek("vote", str(image), "--library", str(library)).stdout)

    assert sum(found["vote"]["shares"].values()) == pytest.approx(1)
    assert found["reason"]


def test_the_service_answers_when_it_owns_the_library(live: Live) -> None:
    image = next((live.folder / "cells" / "eosinophil").glob("*.png"))
    owned = str(live.settings.library)

    found = hemaseek("search", str(image), "-k", "3", "--library", owned)
    written = hemaseek("ingest", str(live.folder / "manifest.csv"), "--library", owned)

    assert len(found.stdout.splitlines()) == 3
    assert json.loads(written.stdout)["stored"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("search", "nosuch.png"), "neither an image file nor the id of an item"),
        (("search", __file__), "not an image"),
        (("search", "00000000-0000-5000-8000-000000000000"), "no item 00000000"),
        (("ingest", "nosuch-folder"), "does not exist"),
        (("ingest", str(Path(__file__).parent), "--layout", "vco"), "Did you mean 'voc'?"),
        (("ingest", "{manifest}", "--encoder", "colours"), "Did you mean 'colour'?"),
        (("search", __file__, "--where", "label"), "expected FIELD=VALUE"),
        (("search", __file__, "--where", "lable=x"), "no field 'lable'"),
        (("evaluate", "--split", "x"), "is not one of 'auto', 'leave-one-patient-out'"),
        (("vote", __file__, "--weighting", "x"), "is not one of 'uniform'"),
        (("refine", __file__, "--region", "0,0,0,0"), "width and height at least 1"),
        (("evaluate", "--cutoff", "soon"), "cutoff: "),
        (("audit", "verify"), "there is no audit log at"),
    ],
)
def test_a_mistake_is_answered_in_words(
    live: Live, library: Path, words: tuple[str, ...], message: str
) -> None:
    manifest = str(live.folder / "manifest.csv")
    named = [argument.replace("{manifest}", manifest) for argument in words]

    done = hemaseek(*named, "--library", str(library))

    assert done.returncode in {1, 2}
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_the_help_groups_every_command() -> None:
    from typer.main import get_command

    from ui.cli.main import app
    from ui.cli.options import SECTIONS

    help_ = hemaseek("--help").stdout

    assert [line for line in help_.splitlines() if line in {f"{name}:" for name in SECTIONS}]
    assert "More:" not in help_
    assert "greater than or equal to 1" in hemaseek("capacity", "--cells", "-5").stderr
    assert set(get_command(app).commands) == {one for names in SECTIONS.values() for one in names}


def test_the_words_of_options_are_those_of_the_wire() -> None:
    from typing import get_args

    from search.schemas import cases, evaluations, exports, mil, questions
    from ui.cli import options

    assert get_args(options.Split) == get_args(evaluations.SplitName)
    assert get_args(questions.Weighting) == get_args(options.Weighting)
    assert get_args(questions.GroupField) == get_args(options.GroupField)
    assert get_args(questions.BalanceField) == get_args(options.BalanceField)
    assert get_args(questions.BagField) == get_args(options.GroupField)
    assert get_args(cases.Distance) == get_args(options.Distance)
    assert get_args(exports.ExportFormat) == get_args(options.ExportFormat)
    for name in ("Pooling", "Task"):
        assert get_args(getattr(mil, name)) == get_args(getattr(options, name)), name


def test_a_narrow_table_shortens_ids_and_keeps_labels() -> None:
    from ui.cli.output import fitted

    columns, id = ("score", "label", "id"), "3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11"
    rows = [("0.9", "segmented neutrophil", id)]

    assert fitted(columns, rows, 80) == rows
    assert fitted(columns, rows, 50) == [("0.9", "segmented neutrophil", "3f0c9c0e…")]


def test_a_summary_is_short_and_sizes_are_as_du_has_them() -> None:
    from ui.cli.output import size, summary

    facts = {"bytes": 1_600_000, "checks": [{"a": 1}] * 9, "names": ["a", "b"], "off": None}

    assert summary({**facts, "built": {"recall": 0.98765}}) == [
        *("bytes  1.5M", "checks  9", "names  a, b", "built", "  recall  0.9877"),
    ]
    assert (size(512), size(20_480), size(3 << 30)) == ("512B", "20K", "3.0G")


def test_the_page_says_where_no_service_answers() -> None:
    import sys

    code = (
        "import os, sys; os.execve = lambda *_: None\n"
        "sys.argv = ['hemaseek', 'page', '--service', 'http://127.0.0.1:9']\n"
        "from ui.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "no service answers at http://127.0.0.1:9" in done.stderr


def test_an_empty_library_says_how_to_fill_it(tmp_path: Path) -> None:
    picture = "00000000-0000-5000-8000-000000000000"

    done = hemaseek("search", picture, "--library", str(tmp_path / "library"))

    assert done.returncode == 1
    assert "hemaseek ingest PATH" in done.stderr


def test_a_failure_is_reported_and_the_exit_status_says_so(live: Live, tmp_path: Path) -> None:
    good = next((live.folder / "cells" / "eosinophil").glob("*.png"))
    folder = tmp_path / "cells" / "eosinophil"
    folder.mkdir(parents=True)
    (folder / "good.png").write_bytes(good.read_bytes())
    (folder / "cut.png").write_bytes(good.read_bytes()[:200])
    report = tmp_path / "report.json"

    done = hemaseek(
        *("ingest", str(tmp_path / "cells"), "--library", str(tmp_path / "library")),
        *("--report", str(report)),
    )
    summary = json.loads(report.read_text())

    assert done.returncode == 1
    assert summary["stored"] == 1
    assert [Path(failure["path"]).name for failure in summary["failures"]] == ["cut.png"]
    assert "damaged" in summary["failures"][0]["reason"]


def test_the_doctor_finds_a_collection_of_another_encoder(library: Path) -> None:
    healthy = hemaseek("doctor", "--library", str(library))
    facts = library / "collections" / "cells" / "versions" / "1" / "collection.json"
    before = facts.read_text()
    body = json.loads(before)
    body["card"]["input_px"] = 32
    del body["card"]["fingerprint"]
    facts.write_text(json.dumps(body))
    try:
        ill = hemaseek("doctor", "--library", str(library))
    finally:
        facts.write_text(before)

    assert healthy.returncode == 0, healthy.stdout
    assert ill.returncode == 1
    failed = [f for f in map(json.loads, ill.stdout.splitlines()) if not f["ok"]]
    assert [f["what"] for f in failed] == ["collection cells"]
    assert "ingest anew" in failed[0]["detail"]


@pytest.mark.parametrize("believed", [False, True])
def test_the_address_that_a_caller_claims_counts_only_from_a_named_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, believed: bool
) -> None:
    made: list[uvicorn.Config] = []
    monkeypatch.setattr(
        uvicorn, "run", lambda app, **more: made.append(uvicorn.Config(app, **more))
    )
    monkeypatch.setattr("ui.cli.serving.return_freed_memory", lambda: None)
    monkeypatch.setenv("HEMASEEK_TRUSTED_PROXIES", "203.0.113.9" if believed else "")
    monkeypatch.setenv("HEMASEEK_API_KEY", "the master key")
    served = CliRunner().invoke(command, ["serve", "--library", str(tmp_path / "library")])
    assert served.exit_code == 0, served.output
    made[0].load()
    statuses = []
    with TestClient(made[0].loaded_app, client=("203.0.113.9", 4711)) as client:
        for at in range(61):
            headers = {"X-API-Key": "wrong", "X-Forwarded-For": f"198.51.100.{at}"}
            statuses.append(client.get("/v1/collections", headers=headers).status_code)

    assert set(statuses[:60]) == {401}
    assert statuses[60] == (401 if believed else 429)
