"""A manager's page that begins a round from what people wrote: what it says, who may, and what it leaves behind."""

from __future__ import annotations

import pytest
from django.urls import reverse

from feedback import queue
from feedback.models import AuditEntry, Project, Snapshot
from rewardtrain import demonstrations_to_learn, rounds
from rewardtrain.models import Round
from tests import make
from tests.rewardtrain.test_rounds import ranked_project

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_send", lambda name, pk: None)
    monkeypatch.setattr(rounds, "FEWEST_RANKINGS", 2)
    monkeypatch.setattr(demonstrations_to_learn, "FEWEST_DEMONSTRATIONS", 3)


def write(project: Project, count: int, *, accepted: bool = True) -> None:
    """Replies to openings of their own, reviewed unless they shall wait."""
    for number in range(count):
        text = f"{'Asked' if accepted else 'Waiting'} {number}?"
        written = make.write(make.make_write_slot(project, text=text), f"Answer to {text}")
        if accepted:
            make.review(make.make_review_slot(written))


def address(project: Project) -> str:
    return reverse("rewardtrain:teach", args=[project.slug])


def look(client, project: Project, name: str = "maria", role: str = "manager"):
    client.force_login(make.make_member(project, name, role))
    return client.get(address(project))


def main_part(response) -> str:
    return response.content.decode().split("<main")[1].split("</main")[0]


def test_what_will_be_learned_is_said_before_anything_begins(client):
    project = ranked_project()
    write(project, 3)
    write(project, 2, accepted=False)
    page = main_part(look(client, project))
    assert "the replies of 3 demonstrations that were accepted" in page and "None is held out" in page
    assert "2 wait for a review and are left out" in page and "learn from 2 rankings" in page
    assert "Start round 1" in page
    assert not Round.objects.exists() and not Snapshot.objects.exists()


def test_the_round_that_begins_learns_from_demonstrations_frozen_with_it(client):
    project = ranked_project(hyperparameters={"policy": {"updates": 3, "lora": {"rank": 2}}})
    write(project, 3)
    look(client, project)
    response = client.post(address(project))
    turn = Round.objects.get()
    assert response.url == reverse("rewardtrain:rounds", args=[project.slug])
    assert turn.hyperparameters["policy"] == {"algorithm": "sft", "lora": {"rank": 2}}  # PPO's settings stay behind
    assert turn.demonstrations.kind == "demonstrations" and len(turn.demonstrations.demonstration_ids) == 3
    assert turn.snapshot.kind == "preference"
    assert AuditEntry.objects.get(action="round.started").actor.username == "maria"

    # it waits for both of its snapshots
    Snapshot.objects.filter(pk=turn.snapshot.pk).update(state="done", sha256="ab" * 32)
    assert rounds.advance(Round.objects.get()) == 0
    Snapshot.objects.filter(pk=turn.demonstrations.pk).update(state="failed", error="disk full")
    assert rounds.advance(Round.objects.get()) == 1
    assert Round.objects.get().error == "The snapshot could not be written: disk full"
    rounds.resume_round(turn=Round.objects.get(), by=None)
    assert Round.objects.get().demonstrations.state == "queued"

    again = client.post(address(project))
    assert again.status_code == 409 and "A round is running already" in main_part(again)


@pytest.mark.parametrize(
    ("written", "ranked", "wanted"),
    [(2, True, "at least 3 accepted demonstrations"), (3, False, "It can begin at 2 rankings; there are 0.")],
)
def test_what_is_missing_is_said_with_no_button_that_would_fail(client, written, ranked, wanted):
    project = ranked_project() if ranked else make.make_project()
    write(project, written)
    page = main_part(look(client, project))
    assert wanted in page and 'type="submit"' not in page and "To the demonstrations" in page
    response = client.post(address(project))
    assert response.status_code == 409 and not Round.objects.exists() and not Snapshot.objects.exists()


@pytest.mark.parametrize("role", ["annotator", "reviewer"])
def test_nobody_but_a_manager_may(client, role):
    project = ranked_project()
    write(project, 3)
    assert look(client, project, "dora", role).status_code in {403, 404}
    assert client.post(address(project)).status_code in {403, 404}
    client.logout()
    assert client.get(address(project)).status_code == 302
    assert not Round.objects.exists()


def test_the_overview_leads_there_once_something_was_accepted(client):
    project = ranked_project(demonstrations_open=True)
    client.force_login(make.make_member(project, "maria", "manager"))
    overview = reverse("feedback:overview", args=[project.slug])
    assert address(project) not in client.get(overview).content.decode()
    write(project, 1)
    assert address(project) in client.get(overview).content.decode()


@pytest.mark.parametrize("corpus", ["absent.txt", "../sign-ins.txt", "/etc/hostname"])
def test_a_corpus_that_is_not_in_its_folder_is_refused_before_the_round_begins(client, corpus, settings, tmp_path):
    settings.DATA_DIR = tmp_path
    project = ranked_project(hyperparameters={"policy": {"algorithm": "sft", "corpus": corpus}})
    write(project, 3)
    look(client, project)
    response = client.post(address(project))
    assert response.status_code == 409 and "There is no corpus" in main_part(response)
    assert not Round.objects.exists() and not Snapshot.objects.exists()


def test_a_refused_setting_of_the_project_is_told(client):
    project = ranked_project(hyperparameters={"policy": {"device": "cuda"}})
    write(project, 3)
    look(client, project)
    response = client.post(address(project))
    assert response.status_code == 409 and "SFT runs on the CPU alone" in main_part(response)
