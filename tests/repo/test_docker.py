"""The images and the compose file: safe by default, and about things that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from live import REPOSITORY

from search.settings import Settings

DOCKER = REPOSITORY / "docker"
IMAGES = {"search": "search", "ui": "ui", "ingest": "ingest"}
"""Dockerfile and the extra that it installs."""
OURS = ("api", "page", "ingest")


@pytest.fixture(name="compose", scope="module")
def _compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return found


def instructions(name: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their lines joined."""
    text = (DOCKER / f"{name}.Dockerfile").read_text()
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", "", text)
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


def settings_named(text: str) -> set[str]:
    return {name.lower() for name in re.findall(r"\bHEMASEEK_([A-Z_]+)", text)}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_installs_what_is_locked_with_an_extra_that_exists(name: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    syncs = [said for kind, said in instructions(name) if kind == "RUN" and "uv sync" in said]

    assert len(syncs) == 2
    for sync in syncs:
        assert "--frozen" in sync
        assert "--no-dev" in sync
        assert re.findall(r"--extra (\w+)", sync) == [IMAGES[name]]
    assert IMAGES[name] in project["project"]["optional-dependencies"]
    assert "--no-editable" in syncs[1]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_copies_only_what_is_there_and_what_its_ignore_file_lets_in(name: str) -> None:
    ignore = (DOCKER / f"{name}.Dockerfile.dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in ignore if line.startswith("!")}
    assert ignore[0] == "*"
    for kind, said in instructions(name):
        if kind == "COPY" and not said.startswith("--from"):
            for source in said.split()[:-1]:
                path = source.removeprefix("./")
                assert (REPOSITORY / path).exists(), f"{name}: no {path}"
                assert path in let_in, f"{name}: {path} is ignored"


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_two_stages_and_runs_as_nobody_of_importance(name: str) -> None:
    said = instructions(name)
    bases = [value for kind, value in said if kind == "FROM"]
    users = [value for kind, value in said if kind == "USER"]

    assert len(bases) == 3  # uv, build, run
    assert not any(base.endswith(":latest") or ":" not in base for base in bases)
    assert users == ["10001"]
    assert [value for kind, value in said if kind == "HEALTHCHECK"]
    assert max(at for at, (kind, _) in enumerate(said) if kind == "RUN") < max(
        at for at, (kind, _) in enumerate(said) if kind == "USER"
    )


def test_the_parts_that_an_image_copies_are_the_parts_of_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    parts = set(project["tool"]["uv"]["build-backend"]["module-name"])

    for name in IMAGES:
        copied = {value.split()[0] for kind, value in instructions(name) if kind == "COPY"}
        assert parts <= copied


def test_the_commands_of_the_images_exist() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    cli = (REPOSITORY / "ui" / "cli" / "main.py").read_text()
    last = {name: dict(instructions(name)) for name in IMAGES}

    assert "hemaseek" in project["project"]["scripts"]
    assert last["search"]["CMD"] == '["hemaseek", "serve"]'
    assert last["ingest"]["ENTRYPOINT"] == '["hemaseek", "ingest"]'
    assert last["ui"]["CMD"] == '["hemaseek", "page", "--address", "0.0.0.0"]'
    for verb in ("serve", "ingest", "page"):
        assert re.search(rf"^def {verb}\(", cli, re.MULTILINE)


def test_every_setting_that_is_named_exists(compose: dict[str, Any]) -> None:
    text = "".join((DOCKER / f"{name}.Dockerfile").read_text() for name in IMAGES)
    for name in OURS:
        text += "\n".join(["", *compose["services"][name]["environment"]])

    assert settings_named(text) <= set(Settings.model_fields)


def test_the_store_is_closed_to_everyone_but_the_service(compose: dict[str, Any]) -> None:
    qdrant = compose["services"]["qdrant"]
    said = qdrant["environment"]

    assert re.fullmatch(r"qdrant/qdrant:v\d+\.\d+\.\d+-unprivileged", qdrant["image"])
    assert said["QDRANT__SERVICE__API_KEY"].startswith("${QDRANT_API_KEY:?")
    assert said["QDRANT__SERVICE__ENABLE_CORS"] == "false"
    assert said["QDRANT__SERVICE__ENABLE_SNAPSHOT_URL_RECOVERY"] == "false"
    assert said["QDRANT__TELEMETRY_DISABLED"] == "true"
    assert "ports" not in qdrant
    assert qdrant["networks"] == ["store"]
    assert compose["networks"]["store"]["internal"] is True
    there = [name for name, one in compose["services"].items() if "store" in one["networks"]]
    assert there == ["qdrant", "api"]


def test_every_container_is_shut_in(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged")
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def mounts(service: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for mount in service.get("volumes", []):
        plain = re.sub(r"\$\{[^}]*\}", "./images", mount)
        source, target, *_ = plain.split(":")
        yield source, target


def test_volumes_are_declared_and_images_are_only_read(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for source, target in mounts(service):
            if source.startswith("."):
                assert target == "/images", name
            else:
                assert source in compose["volumes"], f"{name}: {source}"
        for mount in service.get("volumes", []):
            assert ("images" not in mount) or mount.endswith(":ro")


@pytest.mark.parametrize(("service", "image"), [("api", "search"), ("ingest", "ingest")])
def test_folders_that_are_written_are_volumes_of_the_image(
    compose: dict[str, Any], service: str, image: str
) -> None:
    volumes = re.findall(r'"(/\w+)"', dict(instructions(image))["VOLUME"])
    mounted = {target for _, target in mounts(compose["services"][service])}

    assert set(volumes) == mounted - {"/images"}


def test_each_waits_for_what_it_needs_and_no_secret_is_written_down(
    compose: dict[str, Any],
) -> None:
    needs = {name: set(one.get("depends_on", {})) for name, one in compose["services"].items()}

    assert needs == {"qdrant": set(), "api": {"qdrant"}, "page": {"api"}, "ingest": {"api"}}
    for service in compose["services"].values():
        for one in service.get("depends_on", {}).values():
            assert one == {"condition": "service_healthy"}
        for name, value in service["environment"].items():
            assert not name.endswith("_KEY") or value.startswith("${"), name
    assert compose["services"]["ingest"]["profiles"] == ["ingest"]
    keys = (DOCKER / "env.example").read_text()
    assert not re.findall(r"_KEY=\S", keys)


def test_compose_takes_the_file(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run(
            [docker, "compose", "version"], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("no `docker compose` here")
    environment = tmp_path / "env"
    environment.write_text("QDRANT_API_KEY=a\nHEMASEEK_API_KEY=b\n")
    command = [docker, "compose", "-f", str(DOCKER / "compose.yaml"), "--env-file"]

    done = subprocess.run(
        [*command, str(environment), "--profile", "ingest", "config", "--quiet"],
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr


def test_the_folder_of_the_images_holds_no_python() -> None:
    assert not list(DOCKER.rglob("*.py"))


@pytest.mark.parametrize("name", ["search", "ui"])
def test_an_image_is_built_where_there_is_an_engine(name: str) -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "info"], check=False, capture_output=True).returncode
    ):
        pytest.skip("no Docker engine here")
    done = subprocess.run(
        [docker, "build", "-q", "-f", str(DOCKER / f"{name}.Dockerfile"), str(REPOSITORY)],
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
