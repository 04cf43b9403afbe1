"""Simulated people at work, all over HTTP: they sign in, take what is next, rank, write on, and end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx2

from rewardtrain.rehearsal.pages import Page, read_page
from rewardtrain.starter.annotators import Annotator

logger = logging.getLogger(__name__)
PATIENCE_SECONDS = 180.0  # how long one waits for replies, or for work, before saying that something is wrong
POLL_SECONDS = 1.0  # as often as the pages themselves ask whether replies have come


class RehearsalFailed(RuntimeError):
    """The rehearsal could not go on; the message says where it stuck and what to look at."""


@dataclass
class Share:
    """How many answers all of them give together; one person's step takes one of them."""

    wanted: int
    told: Callable[[int], None] = lambda done: None
    done: int = 0
    _taken: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> bool:
        with self._lock:
            if self._taken >= self.wanted:
                return False
            self._taken += 1
            return True

    def give_back(self) -> None:
        with self._lock:
            self._taken -= 1

    def finish(self) -> None:
        with self._lock:
            self.done += 1
            self.told(self.done)


class Person:
    """One simulated annotator with a browser's manners: cookies, CSRF tokens, redirects."""

    def __init__(self, address: str, username: str, password: str, seed: int, project: str) -> None:
        self.annotator = Annotator(seed)
        self.project = project
        self.username, self.password = username, password
        self.is_signed_in = False
        self.token = ""  # that the newest page with a form had
        self.browser = httpx2.Client(base_url=address, follow_redirects=True, timeout=60.0, trust_env=False)

    def close(self) -> None:
        self.browser.close()

    def get(self, url: str) -> Page:
        return self._read(self.browser.get(url))

    def post(self, url: str, values: Mapping[str, str | list[str]], token: str) -> Page:
        headers = {"Referer": str(self.browser.base_url)}
        return self._read(self.browser.post(url, data={**values, "csrfmiddlewaretoken": token}, headers=headers))

    def _read(self, response: httpx2.Response) -> Page:
        page = read_page(response.text, str(response.url))
        if response.status_code >= 400:
            said = " ".join(page.notice.split()) or "See the web server's log."
            raise RehearsalFailed(f"{self.username} met {response.status_code} at {response.request.url.path}: {said}")
        self.token = page.csrf or self.token
        return page

    def sign_in(self) -> None:
        """Does nothing for somebody who has signed in before."""
        if self.is_signed_in:
            return
        page = self.get("/sign-in/")
        page = self.post("/sign-in/", {"username": self.username, "password": self.password}, page.csrf)
        if "/sign-in/" in page.url:
            raise RehearsalFailed(f"{self.username} could not sign in.")
        self.is_signed_in = True

    def next(self, kind: str) -> Page:
        """What comes next of a kind; home where nothing is left."""
        token = self.token or self.get(f"/?project={self.project}").csrf
        return self.post(f"/next/{self.project}/", {"kind": kind}, token)

    def rank(self, share: Share, stop: threading.Event) -> None:
        """Rank until the share is used up. Work that is not there yet is waited for."""
        page = self._next()
        while not stop.is_set() and share.take():
            try:
                page = self._one_comparison(page, stop)
            except BaseException:
                share.give_back()
                raise
            share.finish()

    def _next(self) -> Page:
        """The next piece of work, waited for while fresh dialogues are opened."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            page = self.next("chat_and_rank")
            if page.is_work:
                return page
            time.sleep(POLL_SECONDS)
        raise RehearsalFailed(f"No work came for {self.username} in {PATIENCE_SECONDS:.0f} s. Do the workers run?")

    def _one_comparison(self, page: Page, stop: threading.Event) -> Page:
        if not page.is_work:
            page = self._next()
        page = self._wait_for_replies(page, stop)
        turns = page.turns
        judgement = self.annotator.judge(turns, [reply.text.strip() for reply in page.replies])
        values: dict[str, str | list[str]] = {
            name: page.forms["rank"].values.get(name, "") for name in ("submit_key", "comparison", "revises")
        }
        values["seconds"] = str(judgement.seconds)
        for place, reply in enumerate(page.replies):
            values[f"rank-{reply.candidate}"] = str(judgement.ranks[place])
            for kind in judgement.flags.get(place, []):
                values |= {f"flag-{reply.candidate}": "on", f"flagkind-{reply.candidate}": kind}
        if judgement.strength:
            values["strength"] = str(judgement.strength)
        if judgement.all_bad:
            values["all_bad"] = "1"
        page = self.post(page.forms["rank"].action, values, page.csrf)
        return self._go_on(page, judgement.all_bad)

    def _wait_for_replies(self, page: Page, stop: threading.Event) -> Page:
        until = time.monotonic() + PATIENCE_SECONDS
        while not stop.is_set() and time.monotonic() < until:
            asked = page.forms["rank"].values.get("comparison") if "rank" in page.forms else ""
            if asked and all(reply.state == "ready" for reply in page.replies):
                return page
            if "retry" in page.forms and any(reply.state == "failed" for reply in page.replies):
                page = self.post(page.forms["retry"].action, {}, page.csrf)
            time.sleep(POLL_SECONDS)
            page = self.get(page.url)
        raise RehearsalFailed(
            f"Replies did not come for {self.username} at {page.url}. See the generation worker's log."
        )

    def _go_on(self, page: Page, all_bad: bool) -> Page:
        """Write on from the best reply, or end the dialogue; ending leads to the next one."""
        message = page.forms.get("message")
        exchanges = sum(turn["role"] == "user" for turn in page.turns)
        if message and message.action and not all_bad and self.annotator.goes_on(exchanges):
            values: dict[str, str | list[str]] = {
                "message": self.annotator.follow_up(page.turns),
                "after_position": message.values.get("after_position", "-1"),
            }
            return self.post(message.action, values, page.csrf)
        return self.post(page.forms["end"].action, {}, page.csrf)


def work_together(people: Sequence[Person], work: Callable[[Person, threading.Event], None]) -> None:
    """Let all of them do the same work at once. Raises the first failure, after the others have put down theirs."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def begin(person: Person) -> None:
        try:
            person.sign_in()
            work(person, stop)
        except Exception as err:  # noqa: BLE001 - a thread's outermost edge: kept, and raised by the caller's thread
            logger.exception("a simulated person stopped")
            failures.append(err)
            stop.set()

    threads = [threading.Thread(target=begin, args=(person,), daemon=True) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
