"""Hostile text on every page of the work, in a real browser: nothing runs, nothing is asked of anywhere else."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Request, expect

from feedback import drafts
from feedback.models import Membership, Project
from tests import make
from tests.annotate.test_untrusted_text import CORPUS
from tests.browser.conftest import Visitor
from tests.browser.replies import Writer
from tests.browser.sheet import expect_ready, expect_sheet

pytestmark = pytest.mark.browser
ALL = "\n".join(CORPUS)


def watch(page: Page, address: str) -> list[str]:
    """Everything that must not happen: a call of hit(), and a request that leaves the site or that nobody made."""
    happened: list[str] = []
    page.expose_function("hit", lambda *_: happened.append("a script ran"))

    def note(request: Request) -> None:
        if not request.url.startswith((address, "data:")) or request.url.endswith("/sign-out/"):
            happened.append(request.url)

    page.on("request", note)
    return happened


def test_nothing_runs_and_nothing_is_fetched(visit: Visitor, project: Project) -> None:
    Project.objects.update(name=ALL[:120], guidelines=ALL)
    alice = make.make_user("alice")
    alice.first_name = alice.last_name = "<img src=x onerror=hit()>\"'><script>hit()</script>"
    alice.save()
    Membership.objects.filter(user=alice).update(role="manager")
    slot = make.make_chat(project, text=ALL, answered=False)
    seen = visit("alice")
    page = seen.page
    happened = watch(page, seen.address)
    seen.go(f"/work/{slot.pk}/")
    expect_sheet(page)
    writer = Writer()
    for index in range(4):
        writer.write_text(index, CORPUS[index] + ALL + str(index))
    writer.finish()  # the replies come in by htmx
    expect_ready(page, "D")
    assert page.locator("#reply-A .reply").inner_text().strip() and page.locator("#reply-A .reply *").count() == 0
    drafts.keep_unsent(slot, message=ALL)
    for path in ("", "?x=" + CORPUS[4]):
        seen.go(f"/work/{slot.pk}/{path}")
        expect_sheet(page)
    for key in "abcd":
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(page.locator("#message-text")).to_have_value(ALL)
    page.keyboard.press("Control+Enter")
    expect_sheet(page)
    writer = Writer()
    writer.fail(ALL)
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    for path in ("/", "/answers/", "/settings/", f"/guidelines/{project.slug}/", f"/projects/{project.slug}/"):
        seen.go(path)
        page.wait_for_load_state("networkidle")
    assert happened == []
