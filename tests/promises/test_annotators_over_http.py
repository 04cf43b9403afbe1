"""The same over HTTP: browsers at the real pages of the real web process, all at once, and nothing they sent is lost.

Each annotator is a thread with cookies of its own: it asks for the next piece, reads its replies off the page, ranks
them, writes on, ends or walks away, and now and then presses a button twice at the same instant. No answer may be a
server error, and what the pages said was saved must be there, once. NESTBOX_FULL_PROMISES=1 runs the full numbers.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from feedback.models import Project, Ranking, Slot, User
from rewardtrain.rehearsal.pages import Page, read_page
from tests import make
from tests.promises.conftest import FULL, Nestbox, assert_nothing_is_wrong, eventually, figures
from tests.promises.test_annotators_at_once import (
    OVERLAP,
    SECONDS,
    THINKING,
    Notebook,
    add_work,
    assert_nobody_was_one_too_many,
    sweep_beside,
    work_beside,
)

pytestmark = [pytest.mark.slow, pytest.mark.services]
Values = dict[str, str]


@dataclass
class HttpNotebook(Notebook):
    """What browsers sent, and what the pages told them was saved."""

    sent: set[UUID] = field(default_factory=set)
    told_saved: dict[UUID, int] = field(default_factory=dict)  # {submit key: annotator}


@dataclass(frozen=True)
class WorkingDay:
    """So many seconds, and on a slow machine longer, until so much was called saved; but not for ever."""

    least: float
    most: float
    rankings: int

    def is_over(self, notebook: HttpNotebook) -> bool:
        now = time.monotonic()
        return now > self.most or (now > self.least and len(notebook.told_saved) >= self.rankings)


@dataclass
class Browser:
    """One person before the pages."""

    user: User
    project: Project
    notebook: HttpNotebook
    dice: random.Random
    web: httpx2.Client

    def work(self, day: WorkingDay) -> None:
        try:
            while not day.is_over(self.notebook):
                self.take_and_do()
        except Exception as err:  # noqa: BLE001 - whatever it is, it is what this test looks for
            self.notebook.note_wrong(f"{type(err).__name__}: {err}")
        finally:
            self.web.close()
            connection.close()

    def take_and_do(self) -> None:
        home = self.get(f"/?project={self.project.slug}")
        _, page = self.press("next", f"/next/{self.project.slug}/", {}, home.csrf)
        time.sleep(self.dice.uniform(0, THINKING))
        if not page.is_work:
            self.notebook.note("nothing to do")
        elif self.dice.random() < 0.1:
            self.walk_away()
        elif page.forms.get("rank") and page.forms["rank"].values.get("comparison"):
            self.rank(page)
        else:
            time.sleep(0.05)  # replies are being made

    def rank(self, page: Page) -> None:
        form = page.forms["rank"]
        values = {name: form.values.get(name, "") for name in ("submit_key", "comparison", "revises")}
        values |= {f"rank-{reply.candidate}": str(self.dice.randint(1, 3)) for reply in page.replies}
        key = UUID(values["submit_key"])
        self.notebook.sent.add(key)
        taken, answered = self.press("submit", form.action, values | {"seconds": "3"}, page.csrf)
        if taken:
            self.notebook.told_saved[key] = self.user.pk
        self.go_on(answered)

    def go_on(self, page: Page) -> None:
        """In a chat: write on, or end the dialogue."""
        message, end = page.forms.get("message"), page.forms.get("end")
        if message and message.action and self.dice.random() < 0.5:
            position = message.values.get("after_position", "-1")
            self.press("write on", message.action, {"message": "And then?", "after_position": position}, page.csrf)
        elif end and end.action:
            self.press("end", end.action, {}, page.csrf)

    def walk_away(self) -> None:
        """Leave what is in hand. The half hour of the lease passes at once."""
        past = timezone.now() - timedelta(seconds=1)
        Slot.objects.filter(annotator=self.user, state="held").update(lease_until=past)
        self.notebook.note("walked away")

    def get(self, url: str) -> Page:
        return self.read(self.web.get(url))

    def press(self, what: str, url: str, values: Values, token: str) -> tuple[bool, Page]:
        """(taken, the page that follows). One time in ten pressed twice at the same instant."""
        self.notebook.note(what)
        times = 2 if self.dice.random() < 0.1 else 1
        with ThreadPoolExecutor(max_workers=times) as pool:
            sent = [pool.submit(self.post, what, url, values, token) for _ in range(times)]
            answers = [each.result() for each in sent]
        return any(answer.is_success for answer in answers), page_of(answers[0])

    def post(self, what: str, url: str, values: Values, token: str) -> httpx2.Response:
        body = values | {"csrfmiddlewaretoken": token}
        headers = {"Referer": str(self.web.base_url)}
        kind = what if what in self.notebook.seconds else "other"
        response = self.notebook.timed(kind, lambda: self.web.post(url, data=body, headers=headers))
        self.judge(response)
        return response

    def read(self, response: httpx2.Response) -> Page:
        self.judge(response)
        return page_of(response)

    def judge(self, response: httpx2.Response) -> None:
        """Refusals are counted by their address; what no page may answer is wrong."""
        if response.status_code >= 500 or response.status_code in {400, 403}:
            self.notebook.note_wrong(f"{response.status_code} at {response.request.url.path}")
        elif response.status_code >= 400:
            self.notebook.note(f"{response.status_code} at {response.request.url.path.split('/')[-2]}")


def page_of(response: httpx2.Response) -> Page:
    return read_page(response.text, str(response.url))


def signed_in(user: User, address: str) -> httpx2.Client:
    """A browser with the cookie of somebody who signed in."""
    django = Client()
    django.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    cookies = {"sessionid": django.cookies["sessionid"].value}
    return httpx2.Client(base_url=address, cookies=cookies, follow_redirects=True, timeout=60.0, trust_env=False)


def free_port() -> int:
    with socket.socket() as attempt:
        attempt.bind(("127.0.0.1", 0))
        return attempt.getsockname()[1]


def is_up(address: str) -> bool:
    try:
        return httpx2.get(f"{address}/healthz", trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def test_nothing_that_the_pages_called_saved_is_lost(nestbox: Nestbox) -> None:
    people = 20 if connection.vendor == "postgresql" else 5
    project = make.make_project(answers_per_comparison=OVERLAP)
    notebook, stop, port = HttpNotebook(), threading.Event(), free_port()
    notebook.seconds["other"] = []
    address = f"http://127.0.0.1:{port}"
    members = [make.make_member(project, f"annotator-{number}") for number in range(people)]
    for number in range((20 if FULL else 4) * people):
        add_work(project, 10_000 + number)
    with nestbox.running("web", port=port):
        eventually(lambda: is_up(address), seconds=60, what="the web process answers")
        browsers = [
            Browser(user, project, notebook, random.Random(user.pk), signed_in(user, address)) for user in members
        ]
        run_together(browsers, stop, notebook, project)
    assert notebook.wrong == []
    assert_the_record_holds(notebook)
    assert_nobody_was_one_too_many()
    assert_nothing_is_wrong()
    assert len(notebook.told_saved) > people
    report(notebook, people)


def run_together(browsers: list[Browser], stop: threading.Event, notebook: HttpNotebook, project: Project) -> None:
    beside = [
        threading.Thread(target=sweep_beside, args=(stop, notebook)),
        threading.Thread(target=work_beside, args=(stop, notebook, project, len(browsers))),
    ]
    now = time.monotonic()
    day = WorkingDay(least=now + SECONDS, most=now + SECONDS + 60, rankings=2 * len(browsers))
    at_work = [threading.Thread(target=browser.work, args=(day,)) for browser in browsers]
    for thread in beside + at_work:
        thread.start()
    for thread in at_work:
        thread.join()
    stop.set()
    for thread in beside:
        thread.join()


def assert_the_record_holds(notebook: HttpNotebook) -> None:
    """Every answer that was called saved is there once and is its sender's; nothing is there that nobody sent."""
    stored: dict[Any, int | None] = dict(Ranking.objects.values_list("submit_key", "annotator"))
    assert notebook.told_saved.items() <= stored.items()
    assert stored.keys() <= notebook.sent
    assert Ranking.objects.count() == len(stored)


def report(notebook: HttpNotebook, people: int) -> None:
    def at(what: str, share: float) -> float:
        found = sorted(notebook.seconds[what])
        return round(found[int(share * (len(found) - 1))], 3)

    figures(
        "annotators over HTTP",
        people=people,
        seconds=SECONDS,
        rankings=len(notebook.told_saved),
        next_p50=at("next", 0.5),
        next_p99=at("next", 0.99),
        submit_p50=at("submit", 0.5),
        submit_p99=at("submit", 0.99),
        happened=dict(notebook.happened),
    )
