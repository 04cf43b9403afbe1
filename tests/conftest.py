"""What every test starts from: seeds, marks that say why a test cannot run here, and processes on its own data."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import hypothesis
import pytest
import redis
from django.conf import settings
from django.db import connection
from django.test import TransactionTestCase

# The same examples in every run, and no example fails for being slow on a busy machine.
hypothesis.settings.register_profile("nestbox", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("nestbox")

SERVICE_FIXTURES = {"db", "transactional_db", "live_server", "process_environment", "client", "admin_client"}
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str | None:
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


def why_not(mark: str) -> str:
    """Why tests with `mark` cannot run here, and what would let them; empty when they can."""
    if mark == "browser":
        if importlib.util.find_spec("playwright") is None:
            return "Playwright is not installed (make setup)"
        return "" if find_browser() else "no Chromium was found (on Debian: apt-get install chromium)"
    if mark == "gpu":
        return "" if Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") else "no GPU was found"
    if mark == "postgres":
        on_postgres = settings.DATABASES["default"]["ENGINE"].endswith("postgresql")
        return "" if on_postgres else "DATABASE_URL does not name a PostgreSQL"
    if mark == "redis":
        return "" if settings.CELERY_BROKER_URL.startswith("redis") else "CELERY_BROKER_URL does not name a Redis"
    return ""


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("NESTBOX_REQUIRE_BROWSER") == "1" and why_not("browser"):
        raise pytest.UsageError(f"Browser tests are required (NESTBOX_REQUIRE_BROWSER=1), but {why_not('browser')}.")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what cannot run here; mark `services` what touches database, queue or pages."""
    reasons = {mark: why_not(mark) for mark in ("browser", "gpu", "postgres", "redis")}
    for item in items:
        for mark, reason in reasons.items():
            if reason and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=f"{mark}: {reason}"))
        touches = item.get_closest_marker("django_db") or SERVICE_FIXTURES & set(getattr(item, "fixturenames", ()))
        if touches and not item.get_closest_marker("once"):
            item.add_marker("services")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each kind of test that could not run here, and why."""
    counts = Counter(skip_reason(report) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in sorted(counts.items()):
        terminalreporter.write_line(f"could not run here: {count} tests; {reason}", yellow=True)
    if not counts:
        terminalreporter.write_line("every selected test could run here")


def skip_reason(report: pytest.TestReport) -> str:
    """The reason a skipped report gives, without pytest's prefix."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers in every run; torch and numpy only where a test has loaded them."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def flush_past_append_only_triggers() -> Iterator[None]:
    """Emptying the tables after a transactional test is the one deletion that the append-only rows must allow."""
    from feedback import append_only

    flush = TransactionTestCase._fixture_teardown

    def flush_suspended(case: TransactionTestCase) -> None:
        with append_only.suspended(connection):
            flush(case)

    TransactionTestCase._fixture_teardown = flush_suspended  # type: ignore[method-assign]
    yield
    TransactionTestCase._fixture_teardown = flush  # type: ignore[method-assign]


def database_url() -> str:
    """The URL of the test's own database, for processes that a test starts."""
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    who = quote(str(database["USER"]), safe="") + (
        f":{quote(str(database['PASSWORD']), safe='')}" * bool(database["PASSWORD"])
    )
    return f"postgres://{who}@{database['HOST'] or '127.0.0.1'}:{database['PORT'] or 5432}/{database['NAME']}"


@pytest.fixture
def own_data_folder(settings: Any, tmp_path: Path) -> Path:
    """A folder of the test's own for what Nestbox keeps beside the database."""
    settings.DATA_DIR = tmp_path / "kept"
    settings.DATA_DIR.mkdir()
    return settings.DATA_DIR


@pytest.fixture
def process_environment(transactional_db: None, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment for a real process (web, worker, command) on this test's database, with a data folder of its own."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    prefix = f"{tmp_path.name}-{os.getpid()}-"
    yield os.environ | {
        "DJANGO_SETTINGS_MODULE": "config.settings.base",
        "DATABASE_URL": database_url(),
        "CELERY_BROKER_URL": settings.CELERY_BROKER_URL if settings.CELERY_BROKER_URL.startswith("redis") else "",
        "CELERY_KEY_PREFIX": prefix,
        "DATA_DIR": str(data),
        "DJANGO_SECRET_KEY": settings.SECRET_KEY,
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if settings.CELERY_BROKER_URL.startswith("redis"):
        forget_queue(prefix)


def forget_queue(prefix: str) -> None:
    """Remove what a test's processes left in a Redis that others may use too."""
    with redis.Redis.from_url(settings.CELERY_BROKER_URL) as server:
        for key in server.scan_iter(f"{prefix}*"):
            server.delete(key)
