"""Simulated people who probe rules and judge each other's probes: over the same pages, with the same errors."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

from rewardtrain.rehearsal.pages import Page
from rewardtrain.rehearsal.people import PATIENCE_SECONDS, POLL_SECONDS, Person, RehearsalFailed, Share
from rewardtrain.starter.openings import openings
from rewardtrain.starter.violations import broken_rules, rules

PROBE, JUDGE = "probe", "judge"
SAID_BROKEN = {1, 2}


@dataclass
class Provocations:
    """What probers write, by rule: openings of the training split, each once before any comes again."""

    seed: int
    _left: dict[str, list[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, rule: str) -> str:
        with self._lock:
            left = self._left.setdefault(rule, [])
            if not left:
                left += [one.text for one in openings() if one.rule == rule and one.split == "train"]
                random.Random(f"provocations {self.seed} {rule}").shuffle(left)
            return left.pop()


def agree(person: Person) -> None:
    """Consent to every theme that may come up, on the page where it is asked."""
    page = person.get(f"/consent/{person.project}/?kind={PROBE}")
    for form in [form for form in page.forms.values() if "about" in form.values]:
        values = {name: form.values[name] for name in ("about", "wording", "kind")}
        person.post(f"/consent/{person.project}/", {**values, "answer": "agree"}, page.csrf)


def probe(person: Person, provocations: Provocations, share: Share, stop: threading.Event) -> None:
    """Try to have rules broken, and say whether they were, until the share is used up."""
    agree(person)
    page = person.next(PROBE)
    while not stop.is_set() and share.take():
        try:
            if not page.is_work:
                raise RehearsalFailed(f"No rule came for {person.username} to probe: {_told(page)}")
            page = _one_probe(person, page, provocations, stop)
        except BaseException:
            share.give_back()
            raise
        share.finish()


def judge(person: Person, share: Share, stop: threading.Event) -> None:
    """Judge the probes of others until none is left for this person."""
    agree(person)
    page = person.next(JUDGE)
    while not stop.is_set() and page.is_work:
        rule = rule_asked_about(page)
        page = _say(person, page, rule, _broken_at(page, rule))
        share.finish()


def rule_asked_about(page: Page) -> str:
    """The key of the rule in whose words a page asks."""
    wording = " ".join(page.wording.split())
    for rule in rules():
        if rule.wording == wording:
            return rule.key
    raise RehearsalFailed(f"The page at {page.url} asks about a rule that simulated people do not know: {wording}")


def _one_probe(person: Person, page: Page, provocations: Provocations, stop: threading.Event) -> Page:
    rule, exchanges = rule_asked_about(page), 0
    while True:
        form = page.forms["message"]
        said = {"message": provocations.take(rule), "after_position": form.values["after_position"]}
        page = _wait_for_reply(person, person.post(form.action, said, page.csrf), stop)
        exchanges += 1
        at = _broken_at(page, rule)
        if at is not None or not person.annotator.tries_again(exchanges):
            return _say(person, person.get(f"{page.url.partition('?')[0]}?step=verdict"), rule, at)


def _wait_for_reply(person: Person, page: Page, stop: threading.Event) -> Page:
    until = time.monotonic() + PATIENCE_SECONDS
    while not stop.is_set() and time.monotonic() < until:
        if "message" in page.forms and page.turns[-1]["role"] == "assistant":
            return page
        if "message" in page.forms:
            page = person.post(page.forms["retry"].action, {}, page.csrf)
        time.sleep(POLL_SECONDS)
        page = person.get(page.url)
    if stop.is_set():
        raise RehearsalFailed(f"{person.username} stopped, as somebody else had to.")
    raise RehearsalFailed(f"No reply came for {person.username} at {page.url}. See the generation worker's log.")


def _broken_at(page: Page, rule: str) -> int | None:
    """The place of the first turn that breaks a rule; None where the rule was kept."""
    turns = enumerate(page.turns)
    return next(
        (at for at, turn in turns if turn["role"] == "assistant" and rule in broken_rules(turn["content"])), None
    )


def _say(person: Person, page: Page, rule: str, at: int | None) -> Page:
    """Give a verdict on what a page shows; the next piece, or home."""
    form = page.forms["verdict"]
    verdict = person.annotator.verdict(at is not None)
    values: dict[str, str | list[str]] = {name: form.values.get(name, "") for name in ("submit_key", "revises")}
    seconds = person.annotator.seconds([turn["content"] for turn in page.turns])
    values |= {"verdict": str(verdict), "seconds": str(seconds)}
    if verdict in SAID_BROKEN:
        last = max(place for place, turn in enumerate(page.turns) if turn["role"] == "assistant")
        values["turn_position"] = str(last if at is None else at)
    return person.post(form.action, values, page.csrf)


def _told(page: Page) -> str:
    return " ".join(page.notice.split()) or f"see {page.url}"
