"""What deploy/ and the READMEs say is true of the code: commands, queues, variables, links, an image without torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings

from config.celery import QUEUES
from config.processes import NAMES, nestbox_processes

DEPLOY = Path(settings.BASE_DIR) / "deploy"
OF_THE_SERVERS = {"POSTGRES_PASSWORD", "POSTGRES_DB", "POSTGRES_USER"}
READ_BY_GUNICORN = {"WEB_CONCURRENCY"}
READ_BY_DJANGO = {"DJANGO_SETTINGS_MODULE"}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"])


@pytest.fixture(scope="module")
def example() -> dict[str, str]:
    lines = (DEPLOY / "env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def variables_read() -> set[str]:
    """The environment variables that the settings read."""
    sources = "".join(path.read_text() for path in (Path(settings.BASE_DIR) / "config" / "settings").glob("*.py"))
    return set(re.findall(r"(?:read_\w+|require_secret_key|env\.str)\(\s*\"([A-Z_]+)\"", sources))


def parsed(command: list[str]) -> dict[str, str | None]:
    """Options of a command and their values, whether written `--a=b` or `--a b`."""
    options: dict[str, str | None] = {}
    words = iter([*command, "--"])
    word = next(words)
    for following in words:
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            options[name] = value if equals else (None if following.startswith("-") else following)
        word = following
    return options


def test_compose_starts_exactly_the_processes_of_serve(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {*NAMES, "postgres", "redis", "migrate"}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "web"])
def test_compose_gives_each_worker_the_command_that_serve_does(services: dict[str, dict[str, Any]], name: str) -> None:
    (process,) = nestbox_processes(host="0.0.0.0", port=8000, only=[name])
    assert services[name]["command"] == ["python", *process.arguments[1:]]


def test_compose_starts_the_web_server_that_serve_does(services: dict[str, dict[str, Any]]) -> None:
    (process,) = nestbox_processes(host="0.0.0.0", port=8000, only=["web"])
    ours, theirs = parsed(list(process.arguments[1:])), parsed(services["web"]["command"][1:])
    differing = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    assert differing <= {"--graceful-timeout", "--worker-tmp-dir"}
    assert theirs["--bind"] == "0.0.0.0:8000"


def test_every_queue_has_one_worker(services: dict[str, dict[str, Any]]) -> None:
    listening = [parsed(service["command"]).get("--queues") for service in services.values() if "command" in service]
    assert sorted(filter(None, listening)) == sorted(QUEUES)


def test_only_what_computes_with_torch_carries_it(services: dict[str, dict[str, Any]]) -> None:
    carrying = {name for name, service in services.items() if service.get("image") == "nestbox-worker"}
    assert carrying == {"generate", "train"}
    web, worker = ((DEPLOY / f"Containerfile.{name}").read_text() for name in ("web", "worker"))
    assert "requirements/web.txt" in web and "learning" not in web and "torch=" not in web
    assert "torch==2.13.0" in worker and "requirements.txt" in worker


def test_the_web_requirements_hold_nothing_that_learns() -> None:
    requirements = Path(settings.BASE_DIR) / "requirements"
    names = {
        name: set(re.findall(r"^([a-zA-Z0-9-]+)", (requirements / f"{name}.txt").read_text(), re.M))
        for name in ("web", "learning")
    }
    assert names["web"] & {"torch", "transformers", "trl", "peft", "accelerate", "datasets"} == set()
    assert names["web"] & names["learning"] == set()
    assert {"torch", "transformers", "trl", "peft"} <= names["learning"]


def test_every_requirement_is_pinned_and_torch_the_same_everywhere() -> None:
    root = Path(settings.BASE_DIR)
    for path in (root / "requirements").glob("*.txt"):
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith(("#", "-r"))]
        assert [line for line in lines if not re.fullmatch(r"[\w.-]+(\[\w+\])?==[\w.]+", line)] == []
    torch = re.search(r"^torch==.*$", (root / "requirements" / "learning.txt").read_text(), re.M)
    assert torch is not None
    assert torch.group() in (root / "Makefile").read_text()


def test_every_variable_in_deploy_is_one_that_something_reads(
    services: dict[str, dict[str, Any]], example: dict[str, str]
) -> None:
    given = set(example).union(*(service.get("environment", {}) for service in services.values()))
    assert given - variables_read() - OF_THE_SERVERS - READ_BY_GUNICORN - READ_BY_DJANGO == set()
    assert {"DATA_DIR", "DATABASE_URL", "CELERY_BROKER_URL", "DJANGO_SECRET_KEY", "PORT"} <= variables_read()


def test_the_example_holds_no_secret_and_names_every_one(example: dict[str, str]) -> None:
    assert [example[name] for name in ("DJANGO_SECRET_KEY", "POSTGRES_PASSWORD", "DJANGO_ALLOWED_HOSTS")] == [
        "",
        "",
        "",
    ]
    wanted = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text()))
    assert wanted <= set(example)


def test_nothing_but_the_proxy_reaches_the_web_process_from_outside(services: dict[str, dict[str, Any]]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"web": ["127.0.0.1:${PORT:-8000}:8000"]}


def test_our_processes_run_without_privileges_on_production_settings(services: dict[str, dict[str, Any]]) -> None:
    for name in (*NAMES, "migrate"):
        assert services[name]["environment"]["DJANGO_SETTINGS_MODULE"] == "config.settings.production"
        assert services[name]["cap_drop"] == ["ALL"] and services[name]["read_only"] is True
    for image in ("web", "worker"):
        assert "\nUSER nestbox\n" in (DEPLOY / f"Containerfile.{image}").read_text()


def test_everything_waits_for_migrations(services: dict[str, dict[str, Any]]) -> None:
    for name in NAMES:
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


@pytest.mark.parametrize("image", ["web", "worker"])
def test_a_container_file_copies_only_what_exists(image: str) -> None:
    text = (DEPLOY / f"Containerfile.{image}").read_text().replace("\\\n", " ")
    for source in re.findall(r"^COPY (\S+) ", text, re.M):
        assert (Path(settings.BASE_DIR) / source).exists()
    command = json.loads(re.findall(r"^CMD (.*)$", text, re.M)[-1])
    assert command[:2] == ["python", "-m"]


def test_static_files_can_be_collected_and_hashed_as_production_serves_them(tmp_path: Path) -> None:
    """Fails when a stylesheet or a script names a file that is not there."""
    storages = dict(settings.STORAGES) | {
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"}
    }
    with override_settings(STORAGES=storages, STATIC_ROOT=tmp_path):
        call_command("collectstatic", interactive=False, verbosity=0)
    paths = json.loads((tmp_path / "staticfiles.json").read_text())["paths"]
    assert all((tmp_path / hashed).exists() for hashed in paths.values())
    assert {name.partition("/")[0] for name in paths} >= {"admin", "css"}


DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "deploy/README.md")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_names_only_commands_files_and_targets_that_exist(name: str) -> None:
    from django.core.management import get_commands

    root = Path(settings.BASE_DIR)
    text = (root / name).read_text()
    assert set(re.findall(r"manage\.py (\w+)", text)) <= set(get_commands())
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not ((root / name).parent / link).exists()] == []
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make (\w+)", text) + re.findall(r"^make (\w+)", text, re.M)) <= targets


def test_the_readme_lists_every_variable_that_is_read() -> None:
    readme = (Path(settings.BASE_DIR) / "README.md").read_text()
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", readme, re.M)) == variables_read() | READ_BY_DJANGO
