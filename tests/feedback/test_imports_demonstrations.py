"""Demonstrations in our own lines: what was exported comes in and goes out the same; who accepted; faults by field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedback import demonstration_turns, demonstrations_wanted, slots, tasks
from feedback.errors import ImportRefused, SnapshotEmpty
from feedback.imports.records import Choices
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import AuditEntry, Demonstration, DemonstrationReview, Import, Project, Turn, WorkItem
from tests import make
from tests.feedback.sources import file_of
from tests.feedback.spoiling import NOT_TEXT, assert_each_is_refused
from tests.feedback.there_and_back import again, assert_the_same, lines_of, written

PROMPT = [{"role": "user", "content": "Name a tree."}]
OAK = [{"role": "assistant", "content": "An oak."}]
ACCEPTED = {"annotator_id": "rosa", "verdict": "accepted"}
pytestmark = [pytest.mark.django_db, pytest.mark.services, pytest.mark.usefixtures("own_data_folder")]


def take_in(path: Path, slug: str = "again", *, accepted: bool = False, **options: Any):
    choices = Choices(accepted=accepted)
    return import_files([path], file_format="demonstrations", slug=slug, choices=choices, **options)


def line(*texts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    said = list(texts) or [{"annotator_id": "maria", "content": "An oak.", "reviews": [ACCEPTED]}]
    return {"prompt": PROMPT, "texts": said} | fields


def text(content: str = "An oak.", **fields: Any) -> dict[str, Any]:
    return {"annotator_id": "maria", "content": content} | fields


# There and back


def test_what_people_wrote_and_said_comes_in_and_goes_out_the_same(tmp_path):
    project = make.make_project(demonstrations_open=True, max_turns=3)
    first = make.write(make.make_write_slot(project, text="Why?"), "First try.", pasted_share=0.25, seconds=3.5)
    make.review(make.make_review_slot(first), "sent_back", reason="Say more.", seconds=2.0)
    mended = make.write(slots.next_slot(user=first.annotator, project=project, kind="demonstrate"), "Two.", revises=1)
    edit = make.review(make.make_review_slot(mended), "edited", content="Three.").edit
    make.review(make.make_review_slot(edit, name="carol"))
    later = demonstration_turns.open_next_turn(demonstration=make.write(make.make_write_slot(project, text="Who?")))
    demonstration_turns.say_next(slot=later, text="And then?", after_position=1)
    make.review(make.make_review_slot(make.write(later, "Then nothing.")))
    make.review(make.make_review_slot(Demonstration.objects.get(dialogue__prompt__messages__0__content="Who?",
                                                                position=0)))  # fmt: skip
    made = make.make_comparison(project, text="Why yellow?").candidates.all()[0]
    make.review(make.make_review_slot(make.write(make.make_write_slot(project, text="Why yellow?"), "Too much water.",
                                                 edited_from=made)))  # fmt: skip
    original = written("plant-desk", "demonstrations")
    told = lines_of(original)
    assert sorted(len(one["texts"]) for one in told) == [1, 1, 1, 3]
    assert sum(one["edited_from"] is not None for one in told) == 1
    second = again(original, tmp_path)
    assert_the_same(original, second)
    assert_the_same(second, again(second, tmp_path, "third"))
    assert list(violations()) == []


def test_twins_of_exactly_the_same_content_stay_apart(tmp_path):
    twins = [line(text(reviews=[ACCEPTED], seconds=seconds)) for seconds in (1.0, 2.0, 1.0)]
    take_in(file_of(tmp_path, *twins), "desk")
    first = written("desk", "demonstrations")
    assert len({one["demonstration_id"] for one in lines_of(first)}) == 3
    assert_the_same(first, again(first, tmp_path))


def test_a_later_turn_keeps_its_group_and_side(tmp_path):
    prompt = [*PROMPT, *OAK, {"role": "user", "content": "Another?"}]
    take_in(file_of(tmp_path, line(group="trees", split="test"), line(group="trees", split="test", prompt=prompt)))
    assert Project.objects.get().prompt_groups.get().key == "trees"
    first = written("again", "demonstrations")
    assert {one["split"] for one in lines_of(first)} == {"test"}
    assert_the_same(first, again(first, tmp_path, "third"))


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=8)
SEEN = {"seconds": st.none() | st.floats(0, 1e6), "late": st.booleans(), "created_at": WORDS}
TEXTS = st.fixed_dictionaries(
    {"content": WORDS.filter(str.strip)},
    optional=SEEN | {"pasted_share": st.none() | st.floats(0, 1), "meta": st.dictionaries(WORDS, WORDS, max_size=2)},
)
REVIEWS = st.fixed_dictionaries({"verdict": st.just("accepted")}, optional=SEEN)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some=st.lists(st.tuples(st.lists(TEXTS, min_size=1, max_size=3), REVIEWS, WORDS), min_size=1, max_size=3))
def test_any_line_comes_in_and_goes_out_the_same(tmp_path, some):
    count = Project.objects.count()
    lines = []
    for texts, review, asked in some:
        said = [one | {"annotator_id": f"someone {at}"} for at, one in enumerate(texts)]
        said[-1]["reviews"] = [review | {"annotator_id": "rosa"}]
        lines.append(line(*said, prompt=[{"role": "user", "content": f"{asked}?"}], source_key=asked))
    take_in(file_of(tmp_path, *lines), f"one-{count}")
    first = written(f"one-{count}", "demonstrations")
    second = again(first, tmp_path, f"two-{count}")
    assert_the_same(first, second)


# What a line becomes


def test_a_line_of_others_needs_a_prompt_and_a_completion_alone(tmp_path):
    (report,) = take_in(file_of(tmp_path, {"prompt": PROMPT, "completion": OAK, "annotator_id": "maria"}))
    written_reply = Demonstration.objects.get()
    assert (written_reply.content, written_reply.annotator_key, written_reply.position) == ("An oak.", "maria", 0)
    assert (written_reply.slot, written_reply.annotator) == (None, None)
    assert written_reply.dialogue.messages() == PROMPT
    assert (report.counts["demonstrations"], report.counts["accepted"]) == (1, 0)
    assert list(violations()) == []


def test_without_a_review_it_waits_and_is_not_exported_and_with_accepted_it_is(tmp_path):
    path = file_of(tmp_path, {"prompt": PROMPT, "completion": OAK})
    take_in(path)
    with pytest.raises(SnapshotEmpty):
        written("again", "demonstrations")
    take_in(path, "good", accepted=True)
    (one,) = lines_of(first := written("good", "demonstrations"))
    assert one["texts"][0]["annotator_id"] == "demonstrations"  # the format: the line names nobody
    assert [review["annotator_id"] for review in one["texts"][0]["reviews"]] == ["demonstrations"]
    assert_the_same(first, again(first, tmp_path, "third"))
    report = Import.objects.get(project__slug="good").report
    assert (report["counts"]["accepted"], report["said_by_manager"]) == (1, {"accepted": True})
    assert AuditEntry.objects.get(action="import.taken_in", project__slug="good").details["accepted"] == 1


def test_accepted_says_nothing_of_a_reply_that_was_sent_back(tmp_path):
    back = {"annotator_id": "rosa", "verdict": "sent_back", "reason": "No."}
    (report,) = take_in(file_of(tmp_path, line(text(reviews=[back])), line(text())), accepted=True)
    assert (report.counts["demonstrations"], report.counts["accepted"]) == (2, 1)
    assert DemonstrationReview.objects.count() == 2


def test_who_changed_their_mind_accepts_in_the_end(tmp_path):
    back = {"annotator_id": "rosa", "verdict": "sent_back", "reason": "No.", "revision": 1}
    (report,) = take_in(file_of(tmp_path, line(text(reviews=[back, ACCEPTED | {"revision": 2}]))))
    assert report.counts["accepted"] == 1
    assert Demonstration.objects.accepted().count() == 1


def test_accepted_without_demonstrations_is_refused():
    with pytest.raises(ImportRefused, match="no written replies that could be accepted"):
        import_files(
            [Path("tests/data/hh_rlhf.jsonl")], file_format="hh-rlhf", slug="pairs", choices=Choices(accepted=True)
        )


def test_a_dry_run_changes_nothing_and_the_same_file_twice_is_noticed(tmp_path):
    path = file_of(tmp_path, line())
    take_in(path, dry_run=True)
    assert not Project.objects.exists()
    take_in(path)
    (report,) = take_in(path)
    assert "imported already" in report.known


# Imported replies are reviewed by people here


def taken_in_open(tmp_path: Path, *lines: dict[str, Any]) -> Project:
    project = make.make_project(demonstrations_open=True, ready_demonstrations=2)
    take_in(file_of(tmp_path, *lines), "plant-desk")
    return project


def asked(name: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": name}]


def test_the_sweep_asks_for_as_many_reviews_as_are_kept_ready(tmp_path):
    project = taken_in_open(tmp_path, *(line(text(f"Reply {at}."), prompt=asked(f"{at}?")) for at in range(3)), line())
    assert demonstrations_wanted.keep_reviews_ready(project) == 2
    assert demonstrations_wanted.keep_reviews_ready(project) == 0
    assert WorkItem.objects.filter(kind="review", demonstration__annotator=None).count() == 2
    make.review(make.make_review_slot(Demonstration.objects.order_by("pk")[0]))
    assert demonstrations_wanted.keep_reviews_ready(project) == 1  # the last; the fourth was accepted by its source
    assert Demonstration.objects.accepted().count() == 2
    assert list(violations()) == []


def test_a_reviewer_reads_an_imported_reply_on_the_page(tmp_path, client):
    taken_in_open(tmp_path, line(text("A hazel, or <b>a birch</b>.")))
    tasks.sweep()
    slot = make.make_review_slot(Demonstration.objects.get())
    client.force_login(slot.annotator)
    page = client.get(reverse("annotate:work", args=[slot.pk])).content.decode()
    assert "Name a tree." in page and "A hazel" in page and "<b>a birch" not in page
    assert "maria" not in page  # who wrote it is not told
    assert client.get(reverse("annotate:home")).status_code == 200


def test_nobody_is_asked_while_demonstrations_are_closed(tmp_path):
    project = taken_in_open(tmp_path, line(text()))
    project.demonstrations_open = False
    project.save()
    assert demonstrations_wanted.keep_reviews_ready(project) == 0


def test_what_is_sent_back_is_given_to_nobody_and_an_edit_stands_in_its_place(tmp_path):
    project = taken_in_open(tmp_path, line(text("One.")), line(text("Two."), prompt=asked("Another?")))
    demonstrations_wanted.keep_reviews_ready(project)
    first, second = Demonstration.objects.order_by("pk")
    make.review(make.make_review_slot(first), "sent_back", reason="Say which.")
    edit = make.review(make.make_review_slot(second), "edited", content="A birch.").edit
    assert not WorkItem.objects.filter(kind="demonstrate", demonstration=first).exists()
    assert (edit.supersedes, edit.annotator_key != "maria") == (second, True)
    make.review(make.make_review_slot(edit, name="carol"))
    (one,) = lines_of(original := written("plant-desk", "demonstrations"))
    assert [said["content"] for said in one["texts"]] == ["Two.", "A birch."]
    assert original.excluded["sent back by a reviewer"] == 1
    assert_the_same(original, again(original, tmp_path))
    assert list(violations()) == []


# Faults


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (line(note="x"), "field 'note' is not known here"),
        (line(prompt=[]), "field prompt should end with what a user said"),
        (line(prompt=[*PROMPT, *OAK]), "field prompt should end with what a user said"),
        (line(texts=[]), "field texts should end with the text that stands"),
        (line(text(withdrawn=True)), "field texts should end with the text that stands"),
        (line(text(content=" ")), r"field texts\[0\].content is empty"),
        (line(text(annotator_id="u7")), r"field texts\[0\].annotator_id is 'u7', which is what accounts"),
        (line(text(revision=2)), r"field texts\[0\].revision should be 1"),
        (line(text("One."), text()), "field texts has revision 1 of 'maria' twice"),
        (line(text(pasted_share=1.5)), r"field texts\[0\].pasted_share should be a number from 0 to 1"),
        (line(text(reviews=[{"annotator_id": "rosa", "verdict": "fine"}])), r"verdict should be one of accepted"),
        (line(text(reviews=[{"annotator_id": "rosa", "verdict": "sent_back"}])), "reason is missing"),
        (line(text(reviews=[{"annotator_id": "rosa", "verdict": "edited"}])), "the edit does not follow it"),
        (line(text(reviews=[{"annotator_id": "maria", "verdict": "accepted"}])), "review by who wrote the text"),
        (line(text(reviews=[ACCEPTED, ACCEPTED])), "has revision 1 of 'rosa' twice"),
        (line(completion=[{"role": "assistant", "content": "A rose."}]), "completion says something else"),
        (line(edited_from=[]), "field edited_from is empty"),
        ({"prompt": PROMPT}, "field completion is missing"),
        ({"prompt": PROMPT, "completion": PROMPT}, "field completion should be one message of the assistant"),
        (line(split="test"), "the same opening lies in train before"),
        (line(split="test", group="g", prompt=asked("Else?")), "group 'g' lies in train before"),
    ],
)
def test_a_fault_is_named_by_line_and_field(tmp_path, bad, told):
    with pytest.raises(ImportRefused, match=f"line 2: .*{told}"):
        take_in(file_of(tmp_path, line(split="train", group="g"), bad))
    assert not Project.objects.exists()


def test_spoilt_lines_are_each_refused_by_the_right_line(tmp_path):
    lines = [line(prompt=asked(f"Question {at}?"), source="desk", split="train") for at in range(20)]
    wrong = {
        "prompt": [None, "x", [], [3], {}, [{"role": "robot", "content": "x"}], [{"role": "user"}]],
        "texts": ["x", [], [3], {}, [{}], [{"annotator_id": "maria"}], [{"annotator_id": "maria", "content": ""}]],
        "source": NOT_TEXT[1:],
        "split": [*NOT_TEXT[1:], "nowhere"],
    }
    assert_each_is_refused(
        lines, tmp_path, file_format="demonstrations", wrong=wrong, is_list=False, may_lack=("source", "split")
    )


def test_turns_of_an_imported_reply_are_no_turns_of_a_persons(tmp_path):
    take_in(file_of(tmp_path, line()))
    assert not Turn.objects.filter(author__isnull=False).exists()
