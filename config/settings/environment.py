"""Typed readers for environment variables. A bad value names the variable and the form that was expected."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from environs import Env
from environs.exceptions import EnvError

env = Env()

DATABASE_FORM = "sqlite:////folder/nestbox.sqlite3 or postgres://user:password@host:5432/name"
BROKER_FORM = "redis://host:6379/0, rediss://host:6379/0, or nothing at all for the queue that needs no server"
KEPT_OPEN = 600  # seconds a thread keeps its connection: opening one, on SQLite too, takes longer than asking by it
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
SHORTEST_SECRET = 50
EXAMPLE_SECRET_MARKS = ("django-insecure-", "change-me", "changeme", "example", "your-secret", "replace", "xxxx")


def refuse(name: str, expected: str, found: str = "") -> ImproperlyConfigured:
    """The error that says which variable is wrong and what it should look like (never a secret's value)."""
    return ImproperlyConfigured(f"{name} should be {expected}" + (f", but it is {found!r}." if found else "."))


def read_flag(name: str, *, default: bool) -> bool:
    """True or False."""
    try:
        return bool(env.bool(name, default))
    except EnvError as error:
        raise refuse(name, "true or false", os.environ.get(name, "")) from error


def read_whole_number(name: str, *, default: int, lowest: int, highest: int) -> int:
    """A whole number between the two bounds, both included."""
    expected = f"a whole number from {lowest} to {highest}"
    try:
        number = int(env.int(name, default))
    except EnvError as error:
        raise refuse(name, expected, os.environ.get(name, "")) from error
    if not lowest <= number <= highest:
        raise refuse(name, expected, str(number))
    return number


def read_list(name: str, *, default: list[str]) -> list[str]:
    """Values separated by commas, blanks around them dropped."""
    return [part.strip() for part in env.list(name, default) if part.strip()]


def read_origins(name: str) -> list[str]:
    """Web origins separated by commas, each with its scheme."""
    origins = read_list(name, default=[])
    for origin in origins:
        if urlsplit(origin).scheme not in {"http", "https"} or not urlsplit(origin).netloc:
            raise refuse(name, "origins with their scheme, such as https://nestbox.example.org", origin)
    return origins


def read_choice(name: str, *, default: str, choices: tuple[str, ...]) -> str:
    """One of `choices`, whatever the case it was typed in."""
    value = str(env.str(name, default)).upper()
    if value not in choices:
        raise refuse(name, "one of " + ", ".join(choices), value)
    return value


def read_data_dir(name: str, *, default: Path) -> Path:
    """The folder for everything Nestbox keeps, made (mode 0700) when it is missing."""
    folder = Path(os.environ.get(name) or default).expanduser().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise refuse(name, "a folder that can be made and written to", str(folder)) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise refuse(name, "a folder that can be written to", str(folder))
    return folder


def read_database(name: str, *, data_dir: Path) -> dict[str, Any]:
    """Django's description of the database behind a URL: SQLite in `data_dir` unless the variable says otherwise."""
    url = os.environ.get(name) or f"sqlite:///{data_dir / 'nestbox.sqlite3'}"
    scheme = urlsplit(url).scheme
    try:
        if scheme not in {"sqlite", "postgres", "postgresql"}:
            raise refuse(name, DATABASE_FORM)
        database = dict(env.dj_db_url("NESTBOX_UNSET_DATABASE_URL", url))
    except (EnvError, ValueError) as error:
        raise refuse(name, DATABASE_FORM) from error
    if scheme == "sqlite":
        return database | {"CONN_MAX_AGE": KEPT_OPEN, "OPTIONS": sqlite_options()}
    if not database.get("NAME"):
        raise refuse(name, DATABASE_FORM)
    return database | {"CONN_MAX_AGE": KEPT_OPEN, "CONN_HEALTH_CHECKS": True}


def sqlite_options(*, synchronous: str = "FULL") -> dict[str, Any]:
    """How SQLite carries several processes: readers beside one writer, writers that queue from their first statement.

    IMMEDIATE takes the write lock when a transaction starts, so that no transaction is refused halfway; FULL means
    that what was answered with "saved" is on disk.
    """
    return {
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": f"PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous};",
    }


def read_broker(name: str, *, default: str) -> str:
    """Where Celery rings: Redis, or by default the file-system queue in the data folder."""
    url = os.environ.get(name) or default
    parts = urlsplit(url)
    known = parts.scheme in {"redis", "rediss"} and parts.netloc or url == default or parts.scheme == "memory"
    if not known:
        raise refuse(name, BROKER_FORM)
    return url


def read_secret_key(name: str, *, data_dir: Path) -> str:
    """The signing key: given, or made at the first start and kept in the data folder, readable by its owner alone."""
    return os.environ.get(name) or kept_secret(data_dir / "secret_key")


def kept_secret(path: Path) -> str:
    """The secret in `path`; made first when missing. Two processes starting at once agree on one."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(64))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    secret = path.read_text().strip()
    if not secret:
        raise ImproperlyConfigured(f"{path} is empty. Delete it and start again; everybody signs in anew.")
    return secret


def require_secret_key(name: str) -> str:
    """The signing key of a server on the open network: given, long, and nobody's example."""
    advice = (
        f"a secret of at least {SHORTEST_SECRET} characters of your own. Make one with: "
        "python -c 'import secrets; print(secrets.token_urlsafe(64))'"
    )
    secret = os.environ.get(name, "")
    if not secret:
        raise ImproperlyConfigured(f"{name} is missing. It should be {advice}")
    if len(secret) < SHORTEST_SECRET or len(set(secret)) < 10:
        raise ImproperlyConfigured(f"{name} is too easy to guess. It should be {advice}")
    if any(mark in secret.lower() for mark in EXAMPLE_SECRET_MARKS):
        raise ImproperlyConfigured(f"{name} is an example that others know. It should be {advice}")
    return secret
