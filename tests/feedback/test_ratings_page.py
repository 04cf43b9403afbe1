"""The manager's pages of ratings: sets added, opened, reworded; what they say, and who may see them."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from feedback.models import AuditEntry, Project, Scale, ScaleSet, Snapshot, User, WorkItem
from tests import make
from tests.annotate.reading import words_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make.make_project()


@pytest.fixture
def manager(client: Client, project: Project) -> Client:
    client.force_login(make.make_member(project, "maria", "manager"))
    return client


def address(project: Project, name: str = "ratings", *args: object) -> str:
    return reverse(f"feedback:{name}", args=[project.slug, *args])


def test_an_empty_page_offers_every_set_that_comes_along(manager: Client, project: Project) -> None:
    words = words_of(manager.get(address(project)))
    assert "No questions yet." in words
    assert all(f"Add {name}" in words for name in ("LaMDA", "InstructGPT", "Sparrow", "Unit tests"))
    assert "Closed: nobody is asked about single replies." in words_of(manager.get(address(project, "overview")))


def test_a_set_is_added_closed_and_opened_in_the_managers_name(manager: Client, project: Project) -> None:
    make.make_comparison(project)
    manager.post(address(project, "add_scale_set"), {"set": "sparrow"})
    assert not ScaleSet.objects.get().is_open and not WorkItem.objects.filter(kind="rate").exists()
    again = manager.post(address(project, "add_scale_set"), {"set": "sparrow"}, follow=True)
    assert "has the set “sparrow” already" in words_of(again)
    manager.post(address(project, "add_scale_set"), {"set": "../../etc/passwd"})
    change = address(project, "change_scale_set", "sparrow")
    assert "Annotators find it on their home page" in words_of(manager.post(change, {"open": "1"}, follow=True))
    assert WorkItem.objects.filter(kind="rate").count() == 4
    manager.post(change, {"sparrow-raters": "3", "sparrow-ready": "9"})
    bad = manager.post(change, {"sparrow-raters": "99", "sparrow-ready": ""}, follow=True)
    assert "less than or equal to 20" in words_of(bad)
    manager.post(change, {"open": "0"})
    found = ScaleSet.objects.get()
    assert (found.is_open, found.raters, found.ready) == (False, 3, 9)
    actions = AuditEntry.objects.filter(actor__username="maria").order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["scale_set.added", "scale_set.opened", "scale_set.changed", "scale_set.closed"]


def test_the_page_says_what_was_answered_and_how_far_people_agree(manager: Client, project: Project) -> None:
    scale_set = make.make_scale_set(project, "instructgpt")
    for number in range(12):
        comparison = make.make_comparison(project, candidates=2, text=f"Opening {number}?")
        for name in ("bob", "carol"):
            slot = make.make_rate_slot(scale_set, comparison.candidates.all()[0], name=name)
            make.rate(slot, overall=str(1 + number % 7))
    page = manager.get(address(project))
    words = words_of(page)
    assert "24" in words and "1.00 1.00 to 1.00" in words and "12 replies rated" in words
    assert 'aria-label="1: 17%, 2: 17%, 3: 17%' in page.content.decode()
    closer = words_of(manager.get(address(project, "scale", "instructgpt", "overall")))
    assert "24 answers about 12 replies" in closer and "Mean 3.6" in closer and "Policy 1" in closer
    flags = words_of(manager.get(address(project, "scale", "instructgpt", "work")))
    assert flags.count("12 replies that two or more rated") == 4 and "all alike" in flags
    overview = words_of(manager.get(address(project, "overview")))
    assert "Replies rated 12 Answers 72" in overview and "Open: InstructGPT." in overview
    manager.post(address(project, "make_snapshot"), {"kind": "ratings"})
    assert len(Snapshot.objects.get().rating_ids) == 72


def test_other_words_are_kept_as_a_version_and_bad_ones_are_shown_again(manager: Client, project: Project) -> None:
    make.make_scale_set(project, "sparrow")
    url = address(project, "scale", "sparrow", "plausible")
    words = {"name": "Likely", "question": "Is it likely?", "guidance": ""}
    options = {"option-yes": "Yes", "option-no": "No", "option-maybe": "Perhaps"}
    refused = manager.post(url, words | options | {"question": " ", "option-no": ""})
    assert refused.status_code == 422 and "Write something here." in words_of(refused)
    assert "words for “no”" in words_of(refused)
    assert "From now on it is asked in these words." in words_of(manager.post(url, words | options, follow=True))
    scale = Scale.objects.asked().get(key="plausible")
    assert (scale.version, scale.name, scale.guidance) == (2, "Likely", "") and ("maybe", "Perhaps") in scale.choices
    assert "These are the words it has." in words_of(manager.post(url, words | options, follow=True))


def test_a_question_is_turned_off_and_on_but_for_the_last(manager: Client, project: Project) -> None:
    make.make_scale_set(project, "sparrow")
    off = words_of(manager.post(address(project, "turn_scale", "sparrow", "supported"), follow=True))
    assert "This question is off" in off and "Ask it again" in off
    last = words_of(manager.post(address(project, "turn_scale", "sparrow", "plausible"), follow=True))
    assert "This is the last question of its set." in last
    manager.post(address(project, "turn_scale", "sparrow", "supported"), {"asked": "1"})
    assert Scale.objects.asked().count() == 2
    assert manager.get(address(project, "scale", "sparrow", "none")).url == address(project)


PLACES: list[tuple[Any, ...]] = [
    ("ratings",), ("add_scale_set",), ("change_scale_set", "sparrow"), ("scale", "sparrow", "plausible"),
    ("turn_scale", "sparrow", "plausible"),
]  # fmt: skip


@pytest.mark.parametrize("role", ["annotator", "reviewer", "elsewhere"])
def test_nobody_else_sees_or_changes_the_questions(client: Client, project: Project, role: str) -> None:
    make.make_scale_set(project, "sparrow")
    where = make.make_project("another") if role == "elsewhere" else project
    client.force_login(make.make_member(where, "nora", "manager" if role == "elsewhere" else role))
    before = list(Scale.objects.values()), list(ScaleSet.objects.values())
    for name, *args in PLACES:
        assert client.post(address(project, name, *args), {"open": "0", "set": "lamda"}).status_code in {404, 405}
    assert client.get(address(project)).status_code == 404
    assert (list(Scale.objects.values()), list(ScaleSet.objects.values())) == before


def test_the_page_asks_no_more_of_the_database_when_there_is_more_to_show(
    manager: Client, project: Project, django_assert_max_num_queries: Any
) -> None:
    for key in ("lamda", "instructgpt", "sparrow", "unit-tests"):
        make.make_scale_set(project, key)
    make.rate(make.make_rate_slot(ScaleSet.objects.get(key="lamda")))
    with django_assert_max_num_queries(8 + 5 * 4):
        manager.get(address(project))


def test_people_are_asked_from_the_admins_list_of_dialogues(client: Client, project: Project) -> None:
    User.objects.create_superuser("root", password=make.PASSWORD)
    client.force_login(User.objects.get(username="root"))
    dialogue = make.make_comparison(project, candidates=3).dialogue
    where = reverse("admin:feedback_dialogue_changelist")
    data = {"action": "ask_for_ratings", "_selected_action": [dialogue.pk]}
    assert "has no questions open" in words_of(client.post(where, data, follow=True))
    make.make_scale_set(project, "sparrow")
    assert "Asked for 3." in words_of(client.post(where, data, follow=True))
    assert WorkItem.objects.filter(kind="rate", wanted=2).count() == 3
    assert AuditEntry.objects.filter(action="ratings.asked").count() == 1
    make.rate(make.make_rate_slot(ScaleSet.objects.get()))
    for model in ("rating", "scaleset"):
        assert client.get(reverse(f"admin:feedback_{model}_changelist")).status_code == 200


def test_the_command_takes_a_file_of_ones_own(project: Project, tmp_path: Path) -> None:
    said = StringIO()
    call_command("import_scales", "lamda", project=project.slug, dry_run=True, stdout=said)
    assert not ScaleSet.objects.exists() and "A dry run" in said.getvalue()
    file = tmp_path / "mine.yaml"
    file.write_text('name: Mine\nscales:\n  - {key: good, name: Good, question: "Is it?", kind: numbers, steps: 5}\n')
    call_command("import_scales", str(file), project=project.slug, open=True, stdout=said)
    assert ScaleSet.objects.get().key == "mine" and ScaleSet.objects.get().is_open
    for wrong in (str(tmp_path / "none.yaml"), str(file), "sparro w"):
        with pytest.raises(CommandError):
            call_command("import_scales", wrong, project=project.slug, stdout=said)
