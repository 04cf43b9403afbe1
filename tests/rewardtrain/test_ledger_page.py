"""A manager's look into the reward ledger: who may read it, what it is sorted by, and that its text stays text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feedback.models import Project
from rewardtrain.models import LedgerEntry, Round, TrainingRun
from rewardtrain.pages.ledger import A_PAGE
from tests import make

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make.make_project()


@pytest.fixture
def manager(client: Client, project: Project) -> Client:
    client.force_login(make.make_member(project, "maria", "manager"))
    return client


@pytest.fixture
def run(project: Project) -> TrainingRun:
    return make_run(project)


def make_run(project: Project, number: int = 1) -> TrainingRun:
    turn = Round.objects.create(project=project, number=number, state="refused", policy_before=project.policy)
    return TrainingRun.objects.create(project=project, round=turn, kind="policy", steps_done=3, steps_total=3)


def add_sample(run: TrainingRun, index: int, **fields: Any) -> LedgerEntry:
    defaults = {
        "step": 1, "prompt": [{"role": "user", "content": f"Question {index}?"}], "response": f"Reply {index}.",
        "terms": {"preference": 1.0, "length_penalty": -0.25}, "reward": 0.75, "kl_nats": 0.5, "token_count": 4,
    }  # fmt: skip
    return LedgerEntry.objects.create(run=run, index=index, **defaults | fields)


def address(project: Project, number: int = 1) -> str:
    return reverse("rewardtrain:ledger", args=[project.slug, number])


def read(client: Client, project: Project, asked: str = "") -> list[str]:
    """The replies on the page, from the top."""
    page = client.get(address(project) + asked)
    assert page.status_code == 200
    return [one.entry.response for one in page.context["samples"]]


@pytest.mark.parametrize("role", ["annotator", "reviewer", None])
def test_who_does_not_manage_the_project_finds_nothing(client, project, run, role):
    client.force_login(make.make_member(project, "alice", role) if role else make.make_user("charlie"))
    assert client.get(address(project)).status_code == 404


def test_a_manager_of_another_project_finds_nothing_here(client, project, run):
    other = make.make_project("orchard")
    client.force_login(make.make_member(other, "maria", "manager"))
    assert client.get(address(project)).status_code == 404
    assert client.get(address(other)).status_code == 404


def test_a_ledger_is_only_read(manager, project, run):
    assert manager.post(address(project)).status_code == 405


def test_the_best_paid_come_first_with_every_term(manager, project, run):
    for index, reward in enumerate((0.2, 3.1, -1.4)):
        add_sample(run, index, reward=reward)
    assert read(manager, project) == ["Reply 1.", "Reply 0.", "Reply 2."]
    body = manager.get(address(project)).content.decode()
    assert "<b>+3.10</b>" in body
    assert '<td class="number" data-label="pref.">+1.00</td>' in body
    assert '<td class="number" data-label="length">−0.25</td>' in body
    assert "“Question 1?”" in body


SORTED: dict[str, Callable[[LedgerEntry], float]] = {
    "reward": lambda one: one.reward,
    "kl_nats": lambda one: one.kl_nats,
    "token_count": lambda one: one.token_count,
    "step": lambda one: one.step,
    "preference": lambda one: one.terms["preference"],
    "length_penalty": lambda one: one.terms["length_penalty"],
}


@pytest.mark.parametrize("by", SORTED)
def test_samples_are_sorted_by_any_part_of_their_reward_and_turned_around(manager, project, run, by):
    values = [(10.0, -1.0, 3, 9.5, 2), (9.0, -0.1, 30, 10.5, 1), (-2.0, 0.0, 4, -3.0, 3)]
    entries = [
        add_sample(
            run, index, reward=reward, kl_nats=kl, token_count=tokens, step=step,
            terms={"preference": preference, "length_penalty": kl - preference},
        )
        for index, (reward, kl, tokens, preference, step) in enumerate(values)
    ]  # fmt: skip
    highest_first = [one.response for one in sorted(entries, key=SORTED[by], reverse=True)]
    assert read(manager, project, f"?by={by}") == highest_first
    assert read(manager, project, f"?by=-{by}") == highest_first[::-1]


def test_a_sample_without_the_term_comes_last_either_way(manager, project, run):
    for index, terms in enumerate(({"preference": 2.0}, {}, {"preference": -3.0})):
        add_sample(run, index, terms=terms)
    assert read(manager, project, "?by=preference") == ["Reply 0.", "Reply 2.", "Reply 1."]
    assert read(manager, project, "?by=-preference") == ["Reply 2.", "Reply 0.", "Reply 1."]


@pytest.mark.parametrize(
    "asked", ["?by=run__project__slug", "?by=terms__preference", "?by=--reward", "?by=%00", "?by="]
)
def test_what_nobody_can_sort_by_is_by_reward(manager, project, run, asked):
    add_sample(run, 0, reward=1.0)
    add_sample(run, 1, reward=2.0)
    assert read(manager, project, asked) == ["Reply 1.", "Reply 0."]


def test_a_long_ledger_comes_in_pages_that_keep_the_order(manager, project, run):
    for index in range(A_PAGE + 2):
        add_sample(run, index, reward=index)
    page = manager.get(address(project) + "?by=-reward")
    assert len(page.context["samples"]) == A_PAGE
    assert 'href="?by=-reward&amp;page=2"' in page.content.decode()
    rest = [f"Reply {index}." for index in (A_PAGE, A_PAGE + 1)]
    assert read(manager, project, "?by=-reward&page=2") == rest
    assert read(manager, project, "?by=-reward&page=99") == rest
    assert len(read(manager, project, "?by=-reward&page=x")) == A_PAGE


def test_hostile_prompts_and_replies_stay_text(manager, project, run):
    hostile = "<img src=x onerror=alert(1)>"
    prompt = [{"role": role, "content": hostile} for role in ("user", "assistant", "user")]
    add_sample(run, 0, prompt=prompt, response=hostile, terms={hostile: 1.0})
    body = manager.get(address(project) + f"?by={hostile}").content.decode()
    assert "<img" not in body.lower()
    assert body.count("&lt;img src=x onerror=alert(1)&gt;") >= 4


def test_samples_of_other_rounds_are_not_mixed_in(manager, project, run):
    add_sample(run, 0)
    add_sample(make_run(project, 2), 1)
    assert read(manager, project) == ["Reply 0."]


def test_a_round_that_has_not_reached_ppo_says_so(manager, project):
    Round.objects.create(project=project, number=1, state="snapshot", policy_before=project.policy)
    body = manager.get(address(project)).content.decode()
    assert "Round 1 has no samples: its policy has not been trained." in body
    assert "Nothing to read yet" in body
    assert manager.get(address(project, 9)).status_code == 404


def test_the_rounds_page_leads_a_manager_to_it(manager, project, run):
    add_sample(run, 0, step=3)
    body = manager.get(reverse("rewardtrain:rounds", args=[project.slug])).content.decode()
    assert f'href="{address(project)}"' in body


def test_a_page_costs_as_many_queries_with_many_samples_as_with_few(manager, project, run, django_assert_num_queries):
    add_sample(run, 0)
    manager.get(address(project))
    with django_assert_num_queries(QUERIES):
        manager.get(address(project))
    for index in range(1, 60):
        add_sample(run, index)
    with django_assert_num_queries(QUERIES):
        manager.get(address(project))


QUERIES = 8  # session, person, project, round, run, terms, count, samples


def test_a_sample_names_the_rule_that_counted_as_plain_text(manager, project, run):
    make.make_rule_set(project, rules=2, name="No <b>body</b>")
    add_sample(run, 0, rule="r1", raw_terms={"rules_probed": 0.8}, terms={"preference": 1.0, "rules": -0.5})
    add_sample(run, 1, rule="r2", raw_terms={"rules_mean": 0.9, "rules_lowest": 0.31}, terms={"rules": 0.5})
    add_sample(run, 2, rule="gone", raw_terms={"rules_probed": 0.5}, terms={"rules": 0.0})
    body = manager.get(address(project) + "?by=-rules").content.decode()
    assert "Probes “No &lt;b&gt;body&lt;/b&gt;”, 80% likely followed" in body
    assert "Most in doubt: “No &lt;b&gt;body&lt;/b&gt;”, 31% likely followed" in body
    assert "Probes “gone”, 50% likely followed" in body
    assert read(manager, project, "?by=-rules") == ["Reply 0.", "Reply 2.", "Reply 1."]
