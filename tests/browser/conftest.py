"""A Chromium at a live site: people sign in, pages are watched for errors, the test itself writes replies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from feedback.models import Project
from tests import make
from tests.conftest import find_browser

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DESK = {"viewport": {"width": 1440, "height": 900}}
PATIENCE_MS = 15_000


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests.

    Playwright runs an event loop in this thread, which Django takes for an async caller.
    """
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        yield browser
        browser.close()
    os.environ.pop("DJANGO_ALLOW_ASYNC_UNSAFE")
    if before is not None:
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = before


@dataclass
class Visit:
    """A person at a browser of their own, and everything that went wrong in it."""

    page: Page
    address: str
    errors: list[str] = field(default_factory=list)
    allowed: tuple[str, ...] = ()  # what a console error may contain, in tests that break the network on purpose

    def go(self, path: str) -> Page:
        self.page.goto(self.address + path)
        return self.page

    def path(self) -> str:
        return self.page.url.removeprefix(self.address)

    def hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(f"{message.type}: {message.text} at {self.path()}")

    def complaints(self) -> list[str]:
        return [error for error in self.errors if not any(part in error for part in self.allowed)]


Visitor = Callable[..., Visit]


@pytest.fixture
def visit(chromium: Browser, live_server) -> Iterator[Visitor]:
    """visit("alice", PHONE) opens a browser in which she is signed in; visit() one in which nobody is.

    At the end every page must have been without console errors, script errors and refusals by the content policy.
    """
    contexts: list[BrowserContext] = []
    visits: list[Visit] = []

    def open_browser(name: str = "", device: dict | None = None, **options) -> Visit:
        context = chromium.new_context(**(device or DESK), **options)
        context.set_default_timeout(PATIENCE_MS)
        if name:
            context.add_cookies([{"name": "sessionid", "value": session_of(name), "url": live_server.url}])
        page = context.new_page()
        seen = Visit(page=page, address=live_server.url)
        page.on("console", seen.hear)
        page.on("pageerror", lambda error: seen.errors.append(f"script: {error}"))
        page.on("dialog", lambda dialog: seen.errors.append(f"dialog: {dialog.message}"))
        contexts.append(context)
        visits.append(seen)
        return seen

    yield open_browser
    complaints = [complaint for seen in visits for complaint in seen.complaints()]
    for context in contexts:
        context.close()
    assert not complaints, complaints


def session_of(name: str) -> str:
    client = Client()
    client.force_login(make.make_user(name))
    return client.cookies["sessionid"].value


@pytest.fixture
def project(transactional_db: None) -> Project:
    project = make.make_project(name="Plant desk", guidelines="**Best first.**", max_turns=3)
    make.make_member(project, "alice")
    return project
