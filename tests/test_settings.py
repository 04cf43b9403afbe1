"""Settings come from the environment; a bad one is named with the form expected; production refuses what is unsafe."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import Client, RequestFactory, override_settings
from django.urls import reverse

from config.addresses import client_address
from config.celery import BEAT_SCHEDULE, QUEUES, app
from config.settings import environment

GOOD_KEY = "kV7" + "q3Zt-B9_xW5mR1sY8uN2pL6aD4fH0gJcEiKoTvXzQbMnSr" * 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("eighty", "PORT should be a whole number from 1 to 65535, but it is 'eighty'."),
        ("0", "PORT should be a whole number from 1 to 65535, but it is '0'."),
        ("65536", "PORT should be a whole number from 1 to 65535, but it is '65536'."),
    ],
)
def test_a_bad_number_is_named_with_the_form_expected(monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    monkeypatch.setenv("PORT", text)
    with pytest.raises(ImproperlyConfigured) as refusal:
        environment.read_whole_number("PORT", default=8000, lowest=1, highest=65535)
    assert str(refusal.value) == said


def test_a_good_number_is_read_and_a_missing_one_has_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "65535")
    assert environment.read_whole_number("PORT", default=8000, lowest=1, highest=65535) == 65535
    monkeypatch.delenv("PORT")
    assert environment.read_whole_number("PORT", default=8000, lowest=1, highest=65535) == 8000


def test_a_flag_is_true_or_false_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_DEBUG", "true")
    assert environment.read_flag("DJANGO_DEBUG", default=False) is True
    monkeypatch.setenv("DJANGO_DEBUG", "perhaps")
    with pytest.raises(ImproperlyConfigured, match="DJANGO_DEBUG should be true or false, but it is 'perhaps'"):
        environment.read_flag("DJANGO_DEBUG", default=False)


def test_a_log_level_is_one_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "debug")
    assert environment.read_choice("LOG_LEVEL", default="INFO", choices=environment.LOG_LEVELS) == "DEBUG"
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(ImproperlyConfigured, match="LOG_LEVEL should be one of DEBUG, INFO"):
        environment.read_choice("LOG_LEVEL", default="INFO", choices=environment.LOG_LEVELS)


def test_an_origin_needs_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORIGINS", "https://a.example.org, http://localhost:8000")
    assert environment.read_origins("ORIGINS") == ["https://a.example.org", "http://localhost:8000"]
    monkeypatch.setenv("ORIGINS", "a.example.org")
    with pytest.raises(ImproperlyConfigured, match="ORIGINS should be origins with their scheme"):
        environment.read_origins("ORIGINS")


def test_without_a_database_url_sqlite_queues_writers_and_syncs_what_it_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    database = environment.read_database("DATABASE_URL", data_dir=tmp_path)
    assert database["NAME"] == str(tmp_path / "nestbox.sqlite3")
    assert database["CONN_MAX_AGE"] == 600
    assert database["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert database["OPTIONS"]["timeout"] == 30
    assert "synchronous=FULL" in database["OPTIONS"]["init_command"]


def test_a_postgres_url_keeps_connections_and_checks_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://ann:s%40crt@db.example.org:5433/nest")
    database = environment.read_database("DATABASE_URL", data_dir=tmp_path)
    assert (database["ENGINE"], database["HOST"], database["PORT"]) == (
        "django.db.backends.postgresql",
        "db.example.org",
        5433,
    )
    assert (database["USER"], database["PASSWORD"], database["NAME"]) == ("ann", "s@crt", "nest")
    assert (database["CONN_MAX_AGE"], database["CONN_HEALTH_CHECKS"]) == (600, True)


@pytest.mark.parametrize("url", ["mysql://ann:hush@db/nest", "nest.sqlite3", "postgres://ann:hush@db:5432/"])
def test_a_bad_database_url_is_named_and_its_password_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL should be sqlite:////folder") as refusal:
        environment.read_database("DATABASE_URL", data_dir=tmp_path)
    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize("url", ["amqp://guest@host", "redis://", "localhost:6379"])
def test_a_bad_broker_url_is_named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", url)
    with pytest.raises(ImproperlyConfigured, match="CELERY_BROKER_URL should be redis://host:6379/0"):
        environment.read_broker("CELERY_BROKER_URL", default=settings.EMBEDDED_BROKER)


def test_the_broker_is_redis_when_named_and_needs_no_server_when_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "rediss://cache.example.org:6380/1")
    assert environment.read_broker("CELERY_BROKER_URL", default="atomicfiles://localhost").startswith("rediss://")
    monkeypatch.setenv("CELERY_BROKER_URL", "")
    assert environment.read_broker("CELERY_BROKER_URL", default="atomicfiles://localhost") == "atomicfiles://localhost"


def test_the_data_folder_is_made_for_its_owner_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "new" / "data"))
    folder = environment.read_data_dir("DATA_DIR", default=tmp_path)
    assert folder == tmp_path / "new" / "data"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_data_folder_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "file" / "data"))
    with pytest.raises(ImproperlyConfigured, match="DATA_DIR should be a folder that can be made"):
        environment.read_data_dir("DATA_DIR", default=tmp_path)


def test_the_secret_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(environment.kept_secret, [tmp_path / "secret_key"] * 8))
    assert len(set(made)) == 1 and len(made[0]) >= environment.SHORTEST_SECRET
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret_key"]


def test_an_empty_secret_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text("\n")
    with pytest.raises(ImproperlyConfigured, match="is empty"):
        environment.kept_secret(tmp_path / "secret_key")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "DJANGO_SECRET_KEY is missing"),
        ("short-and-sweet", "DJANGO_SECRET_KEY is too easy to guess"),
        ("ab" * 40, "DJANGO_SECRET_KEY is too easy to guess"),
        ("django-insecure-" + GOOD_KEY, "DJANGO_SECRET_KEY is an example"),
        ("change-me-" + GOOD_KEY, "DJANGO_SECRET_KEY is an example"),
    ],
)
def test_production_refuses_a_key_that_others_could_know(monkeypatch: pytest.MonkeyPatch, key: str, said: str) -> None:
    monkeypatch.setenv("DJANGO_SECRET_KEY", key)
    with pytest.raises(ImproperlyConfigured, match=said) as refusal:
        environment.require_secret_key("DJANGO_SECRET_KEY")
    assert not key or key not in str(refusal.value)


def manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`manage.py` as a server's owner would call it, with production settings."""
    names = ("DJANGO_SECRET_KEY", "DJANGO_ALLOWED_HOSTS", "DATABASE_URL", "CELERY_BROKER_URL")
    unset = (*names, "DJANGO_ALLOW_ASYNC_UNSAFE")  # which browser tests set for the rest of their session
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR,
        env=inherited | {"DJANGO_SETTINGS_MODULE": "config.settings.production"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_production_does_not_start_without_a_key_and_makes_none(tmp_path: Path) -> None:
    refused = manage("check", DATA_DIR=str(tmp_path), DJANGO_ALLOWED_HOSTS="nestbox.example.org")
    assert refused.returncode != 0
    assert "DJANGO_SECRET_KEY is missing" in refused.stderr
    assert not (tmp_path / "secret_key").exists()


def test_production_does_not_start_without_named_hosts(tmp_path: Path) -> None:
    for hosts in ("", "*"):
        refused = manage("check", DATA_DIR=str(tmp_path), DJANGO_SECRET_KEY=GOOD_KEY, DJANGO_ALLOWED_HOSTS=hosts)
        assert refused.returncode != 0
        assert "DJANGO_ALLOWED_HOSTS should name this server" in refused.stderr


@pytest.mark.slow
def test_production_settings_pass_the_deployment_check(tmp_path: Path) -> None:
    key = secrets.token_urlsafe(64)
    checked = manage(
        "check",
        "--deploy",
        "--fail-level=WARNING",
        DATA_DIR=str(tmp_path),
        DJANGO_SECRET_KEY=key,
        DJANGO_ALLOWED_HOSTS="nestbox.example.org",
        DJANGO_BEHIND_PROXY="true",
    )
    assert checked.returncode == 0, checked.stderr
    assert "no issues (0 silenced)" in checked.stdout


def test_behind_our_own_proxy_only_its_own_entry_is_believed() -> None:
    request = RequestFactory().get("/", headers={"x-forwarded-for": "6.6.6.6, 203.0.113.9"}, REMOTE_ADDR="10.0.0.2")
    with override_settings(BEHIND_PROXY=False):
        assert client_address(request) == "10.0.0.2"
    with override_settings(BEHIND_PROXY=True):
        assert client_address(request) == "203.0.113.9"
        assert client_address(RequestFactory().get("/", REMOTE_ADDR="10.0.0.2")) == "10.0.0.2"


def test_celery_takes_json_alone_and_gives_work_back_when_a_worker_dies() -> None:
    conf = app.conf
    assert (conf.accept_content, conf.task_serializer, conf.result_serializer) == (["json"], "json", "json")
    assert conf.task_acks_late and conf.task_reject_on_worker_lost and conf.task_ignore_result
    assert conf.worker_prefetch_multiplier == 1


@pytest.mark.parametrize(
    ("task", "queue"),
    [
        ("rewardtrain.generate_candidates", "generate"),
        ("rewardtrain.train_reward_model", "train"),
        ("rewardtrain.train_rule_model", "train"),
        ("rewardtrain.train_policy", "train"),
        ("rewardtrain.evaluate_gate", "train"),
        ("rewardtrain.evaluate_policies", "train"),
        ("feedback.sweep", "default"),
        ("rewardtrain.advance_rounds", "default"),
    ],
)
def test_each_task_goes_to_the_queue_whose_worker_can_do_it(task: str, queue: str) -> None:
    assert app.amqp.router.route({}, task)["queue"].name == queue
    assert queue in QUEUES


def test_what_beat_rings_exists_and_does_not_pile_up() -> None:
    app.loader.import_default_modules()
    for entry in BEAT_SCHEDULE.values():
        assert entry["task"] in app.tasks
        assert entry["options"]["expires"] <= 5 * entry["schedule"]


@pytest.mark.django_db
def test_pages_carry_a_policy_that_allows_nothing_foreign_or_inline(client: Client) -> None:
    response = client.get(reverse("login"))
    policy = dict(part.strip().split(" ", 1) for part in response["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["base-uri"] == policy["object-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"].startswith("'self'") and policy["style-src"] == "'self'"
    assert "unsafe" not in response["Content-Security-Policy"] and "http" not in response["Content-Security-Policy"]
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert response["Referrer-Policy"] == "same-origin"
    assert "camera=()" in response["Permissions-Policy"]


@pytest.mark.django_db
def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(client: Client) -> None:
    client.get(reverse("login"))
    cookie = client.cookies[settings.CSRF_COOKIE_NAME]
    assert cookie["httponly"] and cookie["samesite"] == "Lax"
    assert settings.SESSION_COOKIE_HTTPONLY and settings.SESSION_COOKIE_SAMESITE == "Lax"


@pytest.mark.django_db
def test_too_many_wrong_passwords_lock_the_account_for_that_address_alone(client: Client) -> None:
    from tests.make import PASSWORD, make_user

    user = make_user()
    wrong = {"username": user.username, "password": "wrong"}
    answers = [client.post(reverse("login"), wrong).status_code for _ in range(settings.AXES_FAILURE_LIMIT)]
    assert answers == [200] * (settings.AXES_FAILURE_LIMIT - 1) + [429]
    right = {"username": user.username, "password": PASSWORD}
    assert client.post(reverse("login"), right).status_code == 429
    assert client.post(reverse("login"), right, REMOTE_ADDR="203.0.113.9").status_code == 302


@pytest.mark.django_db
def test_healthz_answers_ok_when_the_database_does(client: Client) -> None:
    response = client.get("/healthz")
    assert (response.status_code, response.content) == (200, b"ok")
    assert client.post("/healthz").status_code == 405


@pytest.mark.django_db
def test_healthz_says_that_migrations_are_missing(client: Client) -> None:
    from django.db.migrations.recorder import MigrationRecorder

    MigrationRecorder.Migration.objects.filter(app="sessions").delete()
    response = client.get("/healthz")
    assert response.status_code == 503
    assert b"1 migrations are not applied" in response.content


@pytest.mark.django_db
def test_readyz_names_a_process_that_has_fallen_silent(
    client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from config import heartbeats

    monkeypatch.setattr(settings, "DATA_DIR", tmp_path)
    assert client.get("/readyz").json() == {"database": "ok", "seconds_since_heartbeat": {}, "late": []}
    heartbeats.touch("beat")
    assert client.get("/readyz").status_code == 200
    os.utime(heartbeats.folder() / "beat", (0, 0))
    late = client.get("/readyz")
    assert (late.status_code, late.json()["late"]) == (503, ["beat"])


@pytest.mark.django_db
def test_the_embedded_database_queues_writers_and_lets_readers_read() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("SQLite's own settings; this run is on another database")
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert cursor.execute("PRAGMA foreign_keys").fetchone()[0] == 1
        assert cursor.execute("PRAGMA busy_timeout").fetchone()[0] == 30_000


def test_a_broker_that_does_not_answer_costs_a_page_less_than_three_seconds() -> None:
    code = (
        "import time, celery, django; django.setup(); began = time.monotonic()\n"
        "try: celery.current_app.send_task('feedback.sweep', retry=False)\n"
        "except Exception as error: print(type(error).__name__, time.monotonic() - began)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=settings.BASE_DIR,
        env=os.environ
        | {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0", "DJANGO_SETTINGS_MODULE": "config.settings.base"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said[0] == "OperationalError"
    assert float(said[1]) < 3
