"""The stage of a rehearsal: a project of its own, its simulated people, and what they give in one round."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Sum

from feedback.models import Membership, Project, Rule, Slot, User, WorkItem
from rewardtrain.desk import seed_desk
from rewardtrain.rehearsal import probers
from rewardtrain.rehearsal.people import Person, RehearsalFailed, Share, work_together
from rewardtrain.rehearsal.probers import Provocations
from rewardtrain.seeds import stable_seed
from rewardtrain.terminal import bar

PROBE_SETTINGS = {
    "probes_open": True,
    "judges_per_probe": 2,
    "other_rules_judged": 3,
    "sensitive_per_day": 10_000,
}


@dataclass(frozen=True)
class Wanted:
    """What all people together give in every round, and how many rounds there are."""

    comparisons: int
    probes: int = 0
    rounds: int = 1


@dataclass
class Stage:
    """A project marked as rehearsal, and its people with their passwords for this once."""

    project: Project
    people: list[tuple[str, str]]
    wanted: Wanted
    seed: int
    provocations: Provocations

    @classmethod
    @transaction.atomic
    def build(
        cls,
        *,
        annotators: int,
        wanted: Wanted,
        seed: int,
        hyperparameters: Mapping[str, Any],
        promote_at_once: bool = True,
    ) -> Stage:
        """Where rules are probed, provoking openings come from the probers alone; without probes they are offered."""
        number = 1
        while Project.objects.filter(slug=f"rehearsal-{number}").exists():
            number += 1
        slug = f"rehearsal-{number}"
        project = seed_desk(
            slug=slug,
            name=f"Rehearsal {number}",
            provoking=not wanted.probes,
            is_rehearsal=True,
            promote_at_once=promote_at_once,
            free_dialogues=False,
            max_turns=4,
            ready_dialogues=2 * annotators,
            hyperparameters=dict(hyperparameters),
            **(PROBE_SETTINGS if wanted.probes else {}),
        )
        most = Rule.objects.filter(rule_set__project=project).aggregate(most=Sum("probe_quota"))["most"] or 0
        if wanted.probes * wanted.rounds > most:  # where no round's policy passes, all are of the same one
            raise RehearsalFailed(f"The rules want {most} probes of a policy at most. Lower --probes or --rounds.")
        people = [_person(project, f"{slug}-{place + 1}") for place in range(annotators)]
        return cls(project, people, wanted, seed, Provocations(seed))

    def collect(self, address: str, number: int, out: Any) -> None:
        """One round's work of all people: comparisons, then probes, then what each judges of the others' probes."""
        with ExitStack() as opened:
            people = [self._at_their_browser(address, name, password, number) for name, password in self.people]
            for person in people:
                opened.callback(person.close)
            with bar(f"round {number + 1}: ranking", out) as progress:
                share = _share(self.wanted.comparisons, progress)
                work_together(people, lambda person, stop: person.rank(share, stop))
            if not self.wanted.probes:
                return
            with bar(f"round {number + 1}: probing", out) as progress:
                probes = _share(self.wanted.probes, progress)
                work_together(people, lambda person, stop: probers.probe(person, self.provocations, probes, stop))
            with bar(f"round {number + 1}: judging", out) as progress:
                judgements = _share(self._to_be_judged(), progress)
                work_together(people, lambda person, stop: probers.judge(person, judgements, stop))

    def dismiss(self) -> None:
        """Their work stays; nobody can sign in as them again."""
        names = [name for name, _ in self.people]
        User.objects.filter(username__in=names).update(is_active=False, password="!")

    def _at_their_browser(self, address: str, name: str, password: str, number: int) -> Person:
        return Person(address, name, password, stable_seed(self.seed, number, name) % 2**31, self.project.slug)

    def _to_be_judged(self) -> int:
        waiting = Slot.objects.filter(work_item__project=self.project, work_item__kind=WorkItem.Kind.JUDGE)
        return waiting.filter(state=Slot.State.FREE).count()


def _share(wanted: int, progress: Any) -> Share:
    return Share(wanted, told=lambda done: progress(done, wanted, {}))


def _person(project: Project, username: str) -> tuple[str, str]:
    password = secrets.token_urlsafe(16)
    user = User.objects.create_user(username, password=password, first_name="Simulated", last_name=username)
    Membership.objects.create(project=project, user=user)
    return username, password
