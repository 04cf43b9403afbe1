"""A manager's overview: what it says first, who may see it, what can be done on it."""

from __future__ import annotations

from datetime import timedelta
from io import BytesIO
from uuid import uuid4
from zipfile import ZipFile

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback import append_only, figures, slots, snapshots
from feedback.models import AuditEntry, GenerationRequest, Membership, Project, Ranking, Slot, Snapshot, User
from tests import make

pytestmark = pytest.mark.django_db
HTMX = {"HTTP_HX_REQUEST": "true", "HTTP_HX_TARGET": "queue"}


@pytest.fixture
def project() -> Project:
    return make.make_project()


@pytest.fixture
def manager(client: Client, project: Project) -> Client:
    client.force_login(make.make_member(project, "maria", "manager"))
    return client


def address(project: Project, name: str = "overview", *args: object) -> str:
    return reverse(f"feedback:{name}", args=[project.slug, *args])


def rank_twice(project: Project, *, agree: bool = True, text: str = "Why?") -> None:
    """One comparison of three replies, ranked by Alice and by Ben."""
    work = make.make_rank_work(make.make_comparison(project, candidates=3, text=text), wanted=2)
    for name, places in (("alice", (1, 2, 3)), ("ben", (1, 2, 3) if agree else (3, 2, 1))):
        slot = slots.claim_slot(work.slots.filter(state="free").first().pk, user=make.make_member(project, name))
        make.make_ranking(slot, ranks=make.ranks_by_index(work.comparison, places), strength=3, seconds=40)


def failed_request(project: Project, error: str = "The server did not answer.") -> GenerationRequest:
    return make.make_request(make.make_dialogue(project), state="failed", error=error, finished_at=timezone.now())


def move(ranking: Ranking, days: int) -> None:
    """Pretend an answer was given some days ago."""
    with append_only.suspended(connection):
        Ranking.objects.filter(pk=ranking.pk).update(created_at=timezone.now() - timedelta(days=days))


# Who may see it


@pytest.mark.parametrize("role", ["annotator", "reviewer", None])
def test_who_does_not_manage_the_project_finds_nothing(client, project, role):
    person = make.make_member(project, "alice", role) if role else make.make_user("charlie")
    client.force_login(person)
    assert client.get(address(project)).status_code == 404
    assert client.post(address(project, "make_snapshot")).status_code == 404
    assert client.post(address(project, "try_again", failed_request(project).pk)).status_code == 404
    assert GenerationRequest.objects.get().state == "failed"


def test_a_manager_of_another_project_finds_nothing(client, project):
    client.force_login(make.make_member(make.make_project("orchard"), "maria", "manager"))
    assert client.get(address(project)).status_code == 404


def test_a_manager_who_was_switched_off_finds_nothing(client, project):
    maria = make.make_member(project, "maria", "manager")
    Membership.objects.filter(user=maria).update(is_active=False)
    client.force_login(maria)
    assert client.get(address(project)).status_code == 404


def test_who_is_not_signed_in_is_asked_to(client, project):
    assert client.get(address(project)).url == f"/sign-in/?next={address(project)}"


def test_a_superuser_sees_every_project(client, project):
    client.force_login(User.objects.create_superuser("root"))
    assert client.get(address(project)).status_code == 200


def test_it_is_only_read_by_get_and_only_changed_by_post(manager, project):
    assert manager.post(address(project)).status_code == 405
    assert manager.get(address(project, "make_snapshot")).status_code == 405
    assert manager.get(address(project, "try_again", failed_request(project).pk)).status_code == 405


# What it says first


def test_a_fresh_project_says_what_to_do_first(client):
    project = make.make_project("fresh", with_policy=False)
    client.force_login(make.make_member(project, "maria", "manager"))
    page = client.get(address(project))
    assert [step.is_done for step in page.context["steps"]] == [False] * 5
    assert "No model serves here, so nobody gets a reply" in page.content.decode()
    assert "No replies were ranked by two people yet" in page.content.decode()
    assert "ask whoever runs this server" in page.content.decode()
    User.objects.update(is_staff=True)
    assert "ask whoever runs this server" not in client.get(address(project)).content.decode()


def test_the_first_steps_go_away_once_they_are_done(manager, project):
    Project.objects.update(guidelines="The one that answers comes first.")
    rank_twice(project)
    page = manager.get(address(project))
    assert page.context["steps"] == []
    assert "First things first" not in page.content.decode()


def test_nothing_needs_the_manager_when_work_waits_and_nothing_failed(manager, project):
    make.make_rank_work(make.make_comparison(project))
    page = manager.get(address(project))
    assert page.context["needs"] == []
    assert "Nothing needs you." in page.content.decode()


def test_what_needs_the_manager_stands_on_top_the_most_pressing_first(manager, project):
    failed_request(project)
    make.make_model(project, state="failed")
    Snapshot.objects.create(project=project, state="failed", error="No space left.", finished_at=timezone.now())
    assert [need.text for need in manager.get(address(project)).context["needs"]] == [
        "One request for replies failed",
        "Policy 2 waits for your decision",
        "Nothing waits for annotators",
        "The last snapshot could not be written",
    ]


def test_a_policy_that_was_decided_about_needs_nobody(manager, project):
    make.make_model(project, state="retired")
    make.make_model(project, state="trained")
    make.make_rank_work(make.make_comparison(project))
    assert manager.get(address(project)).context["needs"] == []


def test_people_who_often_disagree_are_worth_a_word(manager, project):
    for index in range(12):
        rank_twice(project, agree=index % 4 == 0, text=f"Question {index}")
    assert "People often disagree" in manager.get(address(project)).content.decode()


# Pace, agreement, queue


def test_answers_are_counted_once_whatever_their_revisions(project):
    slot = make.make_rank_slot(make.make_comparison(project, candidates=2))
    first = make.make_ranking(slot)
    make.make_ranking(slot, ranks=make.ranks_by_index(first.comparison, (2, 1)), revises=1)
    pace = figures.pace(project)
    assert (pace.today, pace.week, pace.total) == (1, 1, 1)


def test_answers_stand_on_their_day_and_under_their_person(project):
    for days, text in ((0, "a"), (0, "b"), (3, "c"), (40, "d")):
        slot = make.make_rank_slot(make.make_comparison(project, text=text), wanted=1)
        move(make.make_ranking(slot, seconds=30 if text == "a" else 60), days)
    make.make_member(project, "ben")
    pace = figures.pace(project)
    assert pace.days == [0] * 10 + [1, 0, 0, 2]
    alice, ben = pace.people
    assert (alice.user.username, alice.today, alice.week, alice.total, alice.seconds) == ("alice", 2, 3, 4, 50)
    assert (ben.user.username, ben.total, ben.last_at) == ("ben", 0, None)
    assert pace.by_date()[0] == (timezone.localdate(), 2, [2, 0])


def test_who_left_the_project_keeps_their_answers_on_the_page(project):
    make.make_ranking(make.make_rank_slot(make.make_comparison(project)))
    Membership.objects.all().delete()
    alice = figures.pace(project).people[0]
    assert (alice.role, alice.is_active, alice.total) == ("No member", False, 1)


def test_other_projects_answers_are_not_counted(project):
    make.make_ranking(make.make_rank_slot(make.make_comparison(make.make_project("orchard"))))
    assert figures.pace(project).total == 0
    assert figures.clearness_of(project).total == 0
    assert figures.agreement_of(project).share.total == 0
    assert figures.queue_of(project).waiting == {}


def test_agreement_is_shown_with_its_interval_and_its_ceiling(manager, project):
    for index in range(11):
        rank_twice(project, agree=index > 0, text=f"Question {index}")
    agreement = figures.agreement_of(project)
    assert (agreement.share.hits, agreement.share.total, agreement.comparisons) == (30, 33, 11)
    body = manager.get(address(project)).content.decode()
    assert "91%</b>" in body
    low, high = agreement.share.interval
    assert f"between {low:.0%} and {high:.0%}" in body
    assert f"at best be right in {agreement.ceiling:.0%}" in body


def test_strengths_are_counted_and_all_bad_apart(project):
    rank_twice(project)
    slot = make.make_rank_slot(make.make_comparison(project, text="Another"))
    make.make_ranking(slot, ranks={}, all_bad=True)
    clearness = figures.clearness_of(project)
    assert dict(clearness.by_strength)["clearly"] == 2
    assert (clearness.all_bad, clearness.unsaid, clearness.total) == (1, 0, 3)


def test_prompts_are_counted_by_split(project):
    for split, count in (("train", 3), ("test", 1)):
        for number in range(count):
            make.make_prompt(project, f"{split} {number}", split)
    assert [(one.split, one.prompts) for one in figures.prompt_counts(project)] == [
        ("train", 3),
        ("validation", 0),
        ("test", 1),
    ]


def test_the_queue_says_what_waits_and_why_something_failed(manager, project):
    make.make_rank_work(make.make_comparison(project), wanted=2)
    make.make_request(make.make_dialogue(project, text="Waiting"))
    failed_request(project, error="The server <b>did not</b> answer.")
    queue = manager.get(address(project)).context["queue"]
    assert (queue.waiting, queue.being_made, queue.failed) == ({"Rank replies": 2}, 1, 1)
    body = manager.get(address(project)).content.decode()
    assert "The server &lt;b&gt;did not&lt;/b&gt; answer." in body
    assert 'hx-trigger="every 5s"' in body


def test_a_failed_request_whose_dialogue_ended_bothers_nobody(project):
    request = failed_request(project)
    type(request.dialogue).objects.update(ended_at=timezone.now(), end_reason="skipped")
    assert figures.queue_of(project).failed == 0


def test_the_queue_comes_alone_where_htmx_asks_for_it(manager, project):
    make.make_request(make.make_dialogue(project))
    part = manager.get(address(project), **HTMX)
    assert part.content.decode().strip().startswith("<section")
    assert "<html" not in part.content.decode()
    assert "HX-Request" in part["Vary"]


def test_the_queue_is_not_fetched_again_when_nothing_is_being_made(manager, project):
    assert "every 5s" not in manager.get(address(project), **HTMX).content.decode()


# What can be done


def test_a_failed_request_is_tried_again(manager, project):
    request = failed_request(project)
    reply = manager.post(address(project, "try_again", request.pk), follow=True)
    assert GenerationRequest.objects.get().state == "queued"
    assert "Back in the queue" in reply.content.decode()


def test_trying_again_by_htmx_gives_the_queue_as_it_is_now(manager, project):
    request = failed_request(project)
    part = manager.post(address(project, "try_again", request.pk), **HTMX).content.decode()
    assert "Requests that failed" in part
    assert "Try again" not in part


def test_what_did_not_fail_is_not_tried_again(manager, project):
    request = make.make_request(make.make_dialogue(project), state="cancelled")
    reply = manager.post(address(project, "try_again", request.pk), follow=True)
    assert GenerationRequest.objects.get().state == "cancelled"
    assert "Nothing to try again" in reply.content.decode()


def test_another_projects_request_is_not_found(manager, project):
    stray = failed_request(make.make_project("orchard"))
    assert manager.post(address(project, "try_again", stray.pk)).status_code == 404


def test_a_snapshot_is_taken_in_the_managers_name(manager, project):
    rank_twice(project)
    reply = manager.post(address(project, "make_snapshot"), follow=True)
    snapshot = Snapshot.objects.get()
    assert snapshot.created_by == User.objects.get(username="maria")
    assert "Snapshot taken" in reply.content.decode()


def written_snapshot(project: Project) -> Snapshot:
    rank_twice(project)
    return snapshots.write_now(snapshots.freeze(project=project, kind="preference", ring=False))


def test_a_snapshots_files_are_taken_along_as_one(manager, project):
    snapshot = written_snapshot(project)
    reply = manager.get(address(project, "download_snapshot", snapshot.pk))
    name = f"plant-desk-preference-{snapshot.sha256[:12]}"
    assert reply["Content-Disposition"] == f'attachment; filename="{name}.zip"'
    content = reply.getvalue()
    folder = snapshots.require_usable(snapshot)
    written = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with ZipFile(BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert {info.filename: archive.read(info) for info in archive.infolist()} == {
            f"{name}/{file}": data for file, data in written.items()
        }
    assert "manifest.json" in written
    assert manager.get(address(project, "download_snapshot", snapshot.pk)).getvalue() == content
    entries = AuditEntry.objects.filter(action="snapshot.downloaded")
    assert {(entry.actor.username, entry.target) for entry in entries} == {
        ("maria", f"feedback.snapshot:{snapshot.pk}")
    }


def test_the_overview_lists_a_snapshot_with_its_counts_hash_and_files(manager, project):
    snapshot = written_snapshot(project)
    body = manager.get(address(project)).content.decode()
    assert '<td class="number" data-label="rankings">2</td>' in body
    assert '<td class="number" data-label="pairs">6</td>' in body
    assert snapshot.sha256[:12] in body
    assert f'href="{address(project, "download_snapshot", snapshot.pk)}"' in body
    assert "manage.py export --project plant-desk --out" in body


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"state": "queued"}, "This snapshot is not written"),
        ({"withdrawn_at": timezone.now(), "withdrawn_because": "Names in it"}, "This snapshot was withdrawn: Names in"),
    ],
)
def test_files_nobody_should_have_are_not_offered_and_not_given(manager, project, change, why):
    snapshot = written_snapshot(project)
    Snapshot.objects.filter(pk=snapshot.pk).update(**change)
    where = address(project, "download_snapshot", snapshot.pk)
    assert where not in manager.get(address(project)).content.decode()
    assert why in manager.get(where, follow=True).content.decode()
    assert not AuditEntry.objects.filter(action="snapshot.downloaded").exists()


def test_a_stranger_and_another_projects_manager_get_no_files(client, project):
    snapshot = written_snapshot(project)
    for name, role in (("alice", "annotator"), ("bob", "reviewer")):
        client.force_login(make.make_member(project, name, role))
        assert client.get(address(project, "download_snapshot", snapshot.pk)).status_code == 404
    other = make.make_project("orchard")
    client.force_login(make.make_member(other, "maria", "manager"))
    for place in (project, other):
        assert client.get(address(place, "download_snapshot", snapshot.pk)).status_code == 404
    assert not AuditEntry.objects.filter(action="snapshot.downloaded").exists()


def test_a_snapshot_of_nothing_is_refused_in_words(manager, project):
    reply = manager.post(address(project, "make_snapshot"), follow=True)
    assert not Snapshot.objects.exists()
    assert "Rank some first" in reply.content.decode()


def test_the_page_asks_no_more_of_the_database_when_there_is_more_to_show(
    manager, project, django_assert_max_num_queries
):
    for index in range(6):
        rank_twice(project, text=f"Question {index}")
        failed_request(project)
        Snapshot.objects.create(project=project, state="done", sha256=uuid4().hex)
    with django_assert_max_num_queries(32):
        assert manager.get(address(project)).status_code == 200


def test_demonstrations_are_opened_and_closed_in_the_managers_name(manager, project):
    make.make_prompt(project)
    assert "Closed: nobody is asked" in manager.get(address(project)).content.decode()
    response = manager.post(address(project, "open_demonstrations"), {"open": "1"})
    assert response.url.endswith("#demonstrations")
    project.refresh_from_db()
    assert project.demonstrations_open and Slot.objects.get().work_item.kind == "demonstrate"
    page = manager.get(address(project)).content.decode()
    assert "<dt>Still to be written</dt><dd>1</dd>" in page and "<dt>Accepted</dt><dd>0</dd>" in page
    manager.post(address(project, "open_demonstrations"))
    project.refresh_from_db()
    assert not project.demonstrations_open
    actions = AuditEntry.objects.filter(actor__username="maria").values_list("action", flat=True)
    assert list(actions.order_by("pk")) == ["project.demonstrations_opened", "project.demonstrations_closed"]


def test_the_overview_counts_demonstrations_by_where_they_stand(manager, project):
    Project.objects.update(demonstrations_open=True)
    accepted, back, waiting = (make.write(make.make_write_slot(project, text=f"{n}?"), n) for n in ("a", "b", "c"))
    make.review(make.make_review_slot(accepted))
    make.review(make.make_review_slot(back), "sent_back", reason="No.")
    page = manager.get(address(project)).content.decode()
    assert "<dt>Accepted</dt><dd>1</dd>" in page and "<dt>Waiting for a review</dt><dd>1</dd>" in page
    assert "<dt>Sent back to who wrote them</dt><dd>1</dd>" in page and "Take a snapshot of the demonstrations" in page
    manager.post(address(project, "make_snapshot"), {"kind": "demonstrations"})
    assert Snapshot.objects.get().demonstration_ids == [accepted.pk]


@pytest.mark.parametrize("role", ["annotator", "reviewer"])
def test_nobody_else_opens_demonstrations(client, project, role):
    client.force_login(make.make_member(project, "alice", role))
    assert client.post(address(project, "open_demonstrations"), {"open": "1"}).status_code == 404
    client.force_login(make.make_member(make.make_project("another"), "nora", "manager"))
    assert client.post(address(project, "open_demonstrations"), {"open": "1"}).status_code == 404
    project.refresh_from_db()
    assert not project.demonstrations_open


def test_the_admin_site_is_linked_for_staff_alone(manager, project):
    assert "/admin/" not in manager.get(address(project)).content.decode()
    User.objects.filter(username="maria").update(is_staff=True)
    assert "/admin/feedback/project/" in manager.get(address(project)).content.decode()
