"""What a program says of replies comes in as lines: all or none, the same twice once, what is wrong by line."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from feedback.errors import ProgramRatingsRefused
from feedback.invariants import violations
from feedback.models import Candidate, Project, Rating
from feedback.program_ratings import record_program_ratings
from tests import make

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    project = make.make_project()
    make.make_scale_set(project, "unit-tests")
    return project


@pytest.fixture
def replies(project: Project) -> list[Candidate]:
    return list(make.make_comparison(project, candidates=3).candidates.all())


def line(reply: Candidate, value: str = "passes", **more: Any) -> str:
    given = {"candidate": reply.pk, "scale": "passes", "value": value, "program": "pytest", "version": "8.3"}
    return json.dumps({name: one for name, one in (given | more).items() if one is not None})


def test_verdicts_are_stored_once_and_another_one_is_a_correction(project: Project, replies: list[Candidate]) -> None:
    first = [line(replies[0], details={"failed": 0}), "", line(replies[1], "fails")]
    stored = record_program_ratings(project=project, lines=first)
    assert (stored.added, stored.corrected, stored.same) == (2, 0, 0)
    rating = Rating.objects.get(candidate=replies[0])
    assert (rating.program, rating.program_version, rating.annotator_key) == ("pytest", "8.3", "pytest/8.3")
    assert (rating.value, rating.source, rating.slot, rating.annotator) == ("passes", {"failed": 0}, None, None)
    again = record_program_ratings(project=project, lines=[first[0], line(replies[1]), line(replies[2])])
    assert (again.added, again.corrected, again.same) == (1, 1, 1)
    in_force = Rating.objects.counted().filter(candidate=replies[1]).get()
    assert (in_force.value, in_force.revision) == ("passes", 2)
    other = record_program_ratings(project=project, lines=[line(replies[1], "fails", version="8.4")])
    assert other.added == 1 and Rating.objects.counted().filter(candidate=replies[1]).count() == 2
    assert list(violations()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"candidate": None}, "candidate is to be the number"),
        ({"candidate": "1"}, "candidate is to be the number"),
        ({"candidate": True}, "candidate is to be the number"),
        ({"candidate": 10**30}, "candidate is to be the number"),
        ({"candidate": 10**9}, "Plant desk has no reply 1000000000"),
        ({"scale": "sensible"}, "scale is to be one of passes"),
        ({"scale": ["passes"]}, "scale is to be one of passes"),
        ({"value": "perhaps"}, "value is to be one of passes, fails, no_code"),
        ({"value": None}, "value is to be one of"),
        ({"program": ""}, "program is to be a text"),
        ({"program": "a/b"}, "program is to be a text"),
        ({"version": 8}, "version is to be a text"),
        ({"details": [1]}, "details are to be an object"),
        ({"foo": 1}, "nobody knows the field “foo”"),
    ],
)
def test_one_wrong_line_and_nothing_is_stored(
    project: Project, replies: list[Candidate], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ProgramRatingsRefused, match="Line 3: ") as refusal:
        record_program_ratings(project=project, lines=[line(replies[0]), line(replies[1]), line(replies[2], **change)])
    assert said in refusal.value.message and refusal.value.message.endswith("Nothing was stored.")
    assert not Rating.objects.exists()


@pytest.mark.parametrize("text", ["{", "[]", "1", '{"candidate": NaN}', "[" * 10_000, '"' + "a" * 30_000 + '"'])
def test_a_line_that_is_no_object_is_named(project: Project, replies: list[Candidate], text: str) -> None:
    with pytest.raises(ProgramRatingsRefused, match="Line 2: "):
        record_program_ratings(project=project, lines=[line(replies[0]), text])
    assert not Rating.objects.exists()


def test_two_lines_about_the_same_name_each_other(project: Project, replies: list[Candidate]) -> None:
    with pytest.raises(ProgramRatingsRefused, match="Line 2: line 1 is about the same"):
        record_program_ratings(project=project, lines=[line(replies[0]), line(replies[0], "fails")])


def test_a_reply_of_another_project_and_a_project_without_questions_are_refused(project: Project) -> None:
    other = make.make_project("elsewhere")
    theirs = make.make_comparison(other, candidates=2).candidates.all()[0]
    with pytest.raises(ProgramRatingsRefused, match="has no reply"):
        record_program_ratings(project=project, lines=[line(theirs)])
    with pytest.raises(ProgramRatingsRefused, match="Add the set unit-tests"):
        record_program_ratings(project=other, lines=[line(theirs)])


def test_the_command_writes_replies_for_a_program_and_takes_its_verdicts_in(
    project: Project, replies: list[Candidate], tmp_path: Path
) -> None:
    out, verdicts = tmp_path / "replies.jsonl", tmp_path / "verdicts.jsonl"
    call_command("record_program_ratings", project=project.slug, replies=out, stdout=StringIO())
    rows = [json.loads(text) for text in out.read_text().splitlines()]
    assert [row["candidate"] for row in rows] == [one.pk for one in replies]
    assert rows[0]["reply"] == replies[0].text and rows[0]["prompt"][0]["role"] == "user"
    verdicts.write_text("\n".join(line(one, "fails") for one in replies))
    said = StringIO()
    call_command("record_program_ratings", str(verdicts), project=project.slug, stdout=said)
    assert "3 verdicts stored" in said.getvalue() and Rating.objects.count() == 3
    for arguments in ([], [str(verdicts), "--replies", str(out)], [str(tmp_path / "none.jsonl")]):
        with pytest.raises(CommandError):
            call_command("record_program_ratings", *arguments, project=project.slug)
