"""People at the same moment: nothing they sent is lost, doubled or refused without cause, and nobody is one too many.

Each annotator is a thread with a database connection of its own, acting through the functions the pages call: it takes
the next piece, thinks, ranks; now and then it walks away (and may come back late), clicks twice at the same instant, or
skips. They write down what was acknowledged; afterwards the record must hold exactly that. A sweep runs beside them,
and a stand-in for the model answers what they write. NESTBOX_FULL_PROMISES=1 runs the full numbers.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.utils import timezone

from feedback import dialogues, generation, queue, rankings, slots
from feedback.dialogues import Phase
from feedback.errors import FeedbackError, SubmitKeyReused
from feedback.models import Comparison, GenerationRequest, Project, Ranking, Slot, User, WorkItem
from tests import make
from tests.promises.conftest import FULL, assert_nothing_is_wrong, figures

pytestmark = [pytest.mark.slow, pytest.mark.services]

OVERLAP = 3
SECONDS = 60.0 if FULL else 8.0
THINKING = 0.4 if FULL else 0.1  # seconds at most


@dataclass
class Notebook:
    """What everybody together was told, in their own words."""

    acknowledged: dict[UUID, tuple[int, int]] = field(default_factory=dict)  # {submit key: (ranking, annotator)}
    happened: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"next": [], "submit": []})
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, what: str) -> None:
        with self.lock:
            self.happened[what] += 1

    def note_wrong(self, what: str) -> None:
        with self.lock:
            self.wrong.append(what)

    def acknowledge(self, key: UUID, ranking: Ranking, user: User) -> None:
        with self.lock:
            told = self.acknowledged.setdefault(key, (ranking.pk, user.pk))
        if told != (ranking.pk, user.pk):
            self.note_wrong(f"one submission was told of two rankings: {told} and {ranking.pk}")

    def timed(self, what: str, action: Callable[[], Any]) -> Any:
        started = time.monotonic()
        try:
            return action()
        finally:
            with self.lock:
                self.seconds[what].append(time.monotonic() - started)


@dataclass
class Annotator:
    """One person at work until the time is over."""

    user: User
    project: Project
    notebook: Notebook
    dice: random.Random
    left_behind: list[Slot] = field(default_factory=list)

    def work(self, until: float) -> None:
        try:
            while time.monotonic() < until:
                self.take_and_do()
        except Exception as err:  # noqa: BLE001 - whatever it is, it is what this test looks for
            self.notebook.note_wrong(f"{type(err).__name__}: {err}")
        finally:
            connection.close()

    def take_and_do(self) -> None:
        slot = self.next_slot()
        if slot is None:
            self.notebook.note("nothing to do")
            time.sleep(0.05)
            return
        time.sleep(self.dice.uniform(0, THINKING))
        chance = self.dice.random()
        if chance < 0.10:
            self.walk_away(slot)
        elif chance < 0.15:
            self.skip(slot)
        elif slot.work_item.kind == WorkItem.Kind.RANK:
            self.rank(slot, slot.work_item.comparison)
        else:
            self.chat(slot)
        if self.left_behind and self.dice.random() < 0.3:
            self.come_back_late(self.left_behind.pop())

    def next_slot(self) -> Slot | None:
        """Ask for the next piece; one time in ten twice at the same instant."""

        def ask() -> Slot | None:
            return slots.next_slot(user=self.user, project=self.project)

        if self.dice.random() >= 0.1:
            return self.notebook.timed("next", ask)
        one, other = twice(ask)
        if one and other and one.pk != other.pk:
            self.notebook.note("double click, two pieces")
        return one

    def walk_away(self, slot: Slot) -> None:
        """Leave it. The half hour of the lease passes at once."""
        past = timezone.now() - timedelta(seconds=1)
        Slot.objects.filter(pk=slot.pk, state="held").update(lease_until=past)
        self.left_behind.append(slot)
        self.notebook.note("walked away")

    def come_back_late(self, slot: Slot) -> None:
        """Send what was ranked before the time was over; it is kept whoever has the piece now."""
        slot = Slot.objects.select_related("work_item").get(pk=slot.pk)
        if slot.work_item.kind != WorkItem.Kind.RANK:
            return
        try:
            self.submit(slot, slot.work_item.comparison, expect_refusal=True)
            self.notebook.note("came back late")
        except FeedbackError as err:
            self.notebook.note(f"late and refused: {err.code}")

    def skip(self, slot: Slot) -> None:
        try:
            if slot.work_item.kind == WorkItem.Kind.RANK:
                slots.skip(slot, reason="I cannot tell.")
            else:
                dialogues.skip_dialogue(slot=slot, reason="I cannot tell.")
            self.notebook.note("skipped")
        except FeedbackError as err:
            self.refused("skip", slot, err)

    def rank(self, slot: Slot, comparison: Comparison) -> None:
        try:
            self.submit(slot, comparison)
        except FeedbackError as err:
            self.refused("ranking", slot, err)

    def submit(self, slot: Slot, comparison: Comparison, *, expect_refusal: bool = False) -> None:
        """Send an answer: once, or twice at the same instant with the same key; sometimes then a changed body too."""
        key = uuid4()
        ranks = {pk: self.dice.randint(1, 3) for pk in comparison.candidates.values_list("pk", flat=True)}

        def send() -> Ranking:
            return rankings.record_ranking(slot=slot, comparison=comparison, submit_key=key, ranks=ranks, seconds=1.0)

        if self.dice.random() < 0.1 and not expect_refusal:
            self.notebook.note("double submit")
            for ranking in twice(send):
                self.notebook.acknowledge(key, ranking, self.user)
        else:
            self.notebook.acknowledge(key, self.notebook.timed("submit", send), self.user)
        if self.dice.random() < 0.05:
            self.change_under_the_same_key(slot, comparison, key, ranks)

    def change_under_the_same_key(self, slot: Slot, comparison: Comparison, key: UUID, ranks: dict[int, int]) -> None:
        changed = {pk: 4 - rank for pk, rank in ranks.items()}
        if rankings.dense(changed) == rankings.dense(ranks):
            return
        try:
            rankings.record_ranking(slot=slot, comparison=comparison, submit_key=key, ranks=changed)
            self.notebook.note_wrong("another answer was taken under a used key")
        except SubmitKeyReused:
            self.notebook.note("same key, other answer: refused")

    def chat(self, slot: Slot) -> None:
        """Rank the replies, then write on or end, as the page offers it."""
        chat = dialogues.look_at_chat(slot)
        try:
            if chat.phase == Phase.RANK and chat.comparison:
                self.submit(slot, chat.comparison)
            elif chat.phase == Phase.RANKED and chat.may_write_on and self.dice.random() < 0.5:
                position = chat.turns[-1].position
                twice(lambda: dialogues.send_message(slot=slot, text="And then?", after_position=position))
                self.notebook.note("wrote on")
            elif chat.phase in {Phase.RANKED, Phase.NONE_GOOD}:
                dialogues.end_dialogue(slot=slot)
                self.notebook.note("ended a dialogue")
        except FeedbackError as err:
            self.refused("chat", slot, err)

    def refused(self, what: str, slot: Slot, err: FeedbackError) -> None:
        """Only a piece that lapsed in this person's hands may be refused."""
        now = Slot.objects.get(pk=slot.pk)
        if now.state == Slot.State.HELD:
            self.notebook.note_wrong(f"{what} refused in hand: {err.code}: {err}")
        self.notebook.note(f"{what} refused: {err.code}")


def twice(action: Callable[[], Any]) -> list[Any]:
    """Do it in two threads at the same instant; raises what either raised."""
    gate = threading.Barrier(2)

    def act() -> Any:
        try:
            gate.wait()
            return action()
        finally:
            connection.close()

    with ThreadPoolExecutor(max_workers=2) as pool:
        return [future.result() for future in [pool.submit(act), pool.submit(act)]]


def sweep_beside(stop: threading.Event, notebook: Notebook) -> None:
    """What beat does every two seconds, here without a pause to speak of."""
    try:
        while not stop.wait(0.1):
            lapsed = slots.lapse_slots()
            with notebook.lock:
                notebook.happened["lapsed"] += lapsed
    except Exception as err:  # noqa: BLE001 - whatever it is, it is what this test looks for
        notebook.note_wrong(f"sweep: {type(err).__name__}: {err}")
    finally:
        connection.close()


def work_beside(stop: threading.Event, notebook: Notebook, project: Project, people: int) -> None:
    """The model, and whoever brings new work: answers requests, and keeps more pieces free than there are people."""
    number = 0
    try:
        while not stop.wait(0.02):
            for request in GenerationRequest.objects.filter(state="queued")[:20]:
                answer(request)
            while Slot.objects.filter(state="free", work_item__closed_at=None).count() < 2 * people * OVERLAP:
                number += 1
                add_work(project, number)
    except Exception as err:  # noqa: BLE001 - whatever it is, it is what this test looks for
        notebook.note_wrong(f"work: {type(err).__name__}: {err}")
    finally:
        connection.close()


def answer(request: GenerationRequest) -> None:
    """What the model does; a dialogue that somebody leaves meanwhile wants no replies any more."""
    claimed = queue.claim(GenerationRequest, request.pk)
    if claimed is None:
        return
    texts = [f"Reply {index}." for index in range(claimed.wanted)]
    if all(generation.store_candidate(claimed, index=index, text=text) for index, text in enumerate(texts)):
        generation.complete_request(claimed)


def add_work(project: Project, number: int) -> None:
    """In turn a comparison that three people shall rank, and a dialogue to chat in."""
    if number % 2:
        comparison = make.make_comparison(project, text=f"Question {number}?")
        dialogues.ask_for_rankings(comparison=comparison, wanted=OVERLAP)
    else:
        item = dialogues.open_dialogue(project=project, prompt=make.make_prompt(project, f"Opening {number}?"))
        answer(GenerationRequest.objects.get(dialogue=item.dialogue))


@pytest.mark.django_db(transaction=True)
def test_nothing_is_lost_doubled_or_over_assigned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_send", lambda name, pk: None)
    people = 20 if connection.vendor == "postgresql" else 5
    project = make.make_project(answers_per_comparison=OVERLAP)
    notebook, stop = Notebook(), threading.Event()
    annotators = [
        Annotator(make.make_member(project, f"annotator-{n}"), project, notebook, random.Random(n))
        for n in range(people)
    ]
    for number in range((20 if FULL else 4) * people):
        add_work(project, 10_000 + number)
    beside = [
        threading.Thread(target=sweep_beside, args=(stop, notebook)),
        threading.Thread(target=work_beside, args=(stop, notebook, project, people)),
    ]
    until = time.monotonic() + SECONDS
    at_work = [threading.Thread(target=annotator.work, args=(until,)) for annotator in annotators]
    for thread in beside + at_work:
        thread.start()
    for thread in at_work:
        thread.join()
    stop.set()
    for thread in beside:
        thread.join()
    assert notebook.wrong == []
    assert_everything_acknowledged_is_there(notebook)
    assert_nobody_was_one_too_many()
    assert_nobody_is_sent_home_while_work_is_left(annotators)
    assert_nothing_is_wrong()
    assert len(notebook.acknowledged) > people
    report(notebook, people)


def assert_everything_acknowledged_is_there(notebook: Notebook) -> None:
    """Nothing lost, nothing doubled, nothing that nobody sent."""
    stored = {key: (pk, user) for pk, key, user in Ranking.objects.values_list("pk", "submit_key", "annotator")}
    assert stored == notebook.acknowledged


def assert_nobody_was_one_too_many() -> None:
    """Told from the rows alone: counted answers of different people, at most three a question."""
    for item in WorkItem.objects.filter(kind=WorkItem.Kind.RANK):
        counted = Ranking.objects.counted().filter(slot__work_item=item)
        people = counted.values_list("annotator", flat=True)
        assert len(people) == len(set(people)) <= item.wanted


def assert_nobody_is_sent_home_while_work_is_left(annotators: list[Annotator]) -> None:
    for annotator in annotators:
        waiting = slots.waiting_slots(user=annotator.user, project=annotator.project)
        assert annotator.next_slot() is not None or not waiting.exists()


def report(notebook: Notebook, people: int) -> None:
    def at(what: str, share: float) -> float:
        found = sorted(notebook.seconds[what])
        return round(found[int(share * (len(found) - 1))], 3)

    figures(
        "annotators",
        people=people,
        seconds=SECONDS,
        rankings=len(notebook.acknowledged),
        next_p50=at("next", 0.5),
        next_p99=at("next", 0.99),
        submit_p50=at("submit", 0.5),
        submit_p99=at("submit", 0.99),
        happened=dict(notebook.happened),
    )
