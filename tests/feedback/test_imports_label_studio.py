"""Label Studio: what stood left its configuration says; annotations become rankings, and what is unclear is refused."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from feedback.errors import ImportRefused
from feedback.imports.labelling_config import read_config
from feedback.imports.records import Choices
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import Comparison, Dialogue, Project, Ranking
from tests.feedback.sources import file_of
from tests.feedback.spoiling import assert_each_is_refused

PAIRWISE = """<View>
  <!-- which is better? -->
  <Text name="asked" value="$prompt"/>
  <Pairwise name="pw" toName="first,second" leftClass="a" rightClass="b"/>
  <View><Text name="first" value="$answer1"/><Text name="second" value="$answer2"/></View>
</View>"""
DATA = {"prompt": "Name a tree.", "answer1": "A rose.", "answer2": "An oak.", "batch": 3}
FIELDS = {"reply_fields": ["answer1", "answer2"]}
pytestmark = [pytest.mark.django_db, pytest.mark.services]


def result(kind: str = "pairwise", name: str = "pw", to: str = "first", **value: Any) -> dict[str, Any]:
    return {"id": "x1", "from_name": name, "to_name": to, "type": kind, "value": value}


def annotation(*results: dict[str, Any], by: Any = 10, **fields: Any) -> dict[str, Any]:
    said = list(results) or [result(selected="right")]
    return {"id": 7, "completed_by": by, "result": said, "was_cancelled": False, "lead_time": 4.5} | fields


def task(*annotations: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": 1, "data": DATA, "annotations": list(annotations), "predictions": []} | fields


def take_in(tmp_path: Path, *tasks: Any, config: str = PAIRWISE, as_list: bool = True, **options: Any):
    path = file_of(tmp_path, *tasks, name="tasks.json", as_list=as_list)
    if config:
        options["labelling_config"] = tmp_path / "config.xml"
        options["labelling_config"].write_text(config)
    return import_files([path], file_format="label-studio", slug="studio", choices=Choices(options=options))


def ranks(ranking: Ranking) -> dict[str, int]:
    return {one.source["field"]: ranking.ranks()[one.pk] for one in ranking.comparison.candidates.all()}


def test_the_configuration_says_which_field_stood_left(tmp_path):
    take_in(tmp_path, task(annotation()))
    ranking = Ranking.objects.get()
    assert ranks(ranking) == {"answer1": 2, "answer2": 1}
    assert (ranking.annotator_key, ranking.seconds, ranking.slot) == ("annotator 10", 4.5, None)
    dialogue = ranking.comparison.dialogue
    assert dialogue.messages() == [{"role": "user", "content": "Name a tree."}]
    assert (dialogue.source_key, dialogue.source["data"]) == ("task 1", {"batch": 3})
    assert list(violations()) == []


def test_the_left_one_is_the_first_that_the_control_names_wherever_it_is_shown(tmp_path):
    take_in(tmp_path, task(annotation()), config=PAIRWISE.replace("first,second", "second,first"))
    assert ranks(Ranking.objects.get()) == {"answer1": 1, "answer2": 2}


def test_fields_may_be_named_instead(tmp_path):
    take_in(tmp_path, task(annotation(result(selected="left"))), config="", prompt_field="prompt", **FIELDS)
    assert ranks(Ranking.objects.get()) == {"answer1": 1, "answer2": 2}


def test_without_either_nothing_is_guessed(tmp_path):
    with pytest.raises(ImportRefused, match="does not say which fields of a task were compared, nor which stood left"):
        take_in(tmp_path, task(annotation()), config="")
    assert not Project.objects.exists()


def test_several_annotators_and_a_second_answer_of_one_are_all_kept(tmp_path):
    left = annotation(result(selected="left"), by=10)
    take_in(tmp_path, task(annotation(), annotation(by={"id": 11, "email": "who@example.org"}), left))
    found = Ranking.objects.order_by("pk").values_list("annotator_key", "revision")
    assert list(found) == [("annotator 10", 1), ("annotator 11", 1), ("annotator 10", 2)]
    told = str([one.source for one in Ranking.objects.all()]) + str(Dialogue.objects.get().source)
    assert "example.org" not in told  # names and addresses of annotators stay behind
    assert list(violations()) == []


def test_cancelled_ones_are_left_out_and_a_task_without_an_answer_waits(tmp_path):
    (report,) = take_in(tmp_path, task(annotation(was_cancelled=True)), task(id=2))
    assert (Comparison.objects.count(), Ranking.objects.count()) == (2, 0)
    assert report.notes == {
        "annotations that were cancelled, left out": 1,
        "tasks that nobody answered, which wait to be ranked": 2,
    }


def test_ground_truth_is_gold(tmp_path):
    take_in(tmp_path, task(annotation(ground_truth=True)))
    assert Ranking.objects.get().source["gold"] is True


CHOICES = """<View><Text name="q" value="$prompt"/><Text name="a" value="$answer1"/><Text name="b" value="$answer2"/>
<Choices name="better" toName="a,b"><Choice value="First"/><Choice value="Second"/><Choice value="Same"/></Choices>
</View>"""


@pytest.mark.parametrize(
    ("word", "expected", "all_bad"),
    [("Second", {"answer1": 2, "answer2": 1}, False), ("Same", {"answer1": 1, "answer2": 1}, False),
     ("Neither", {"answer1": 1, "answer2": 1}, True)],
)  # fmt: skip
def test_words_of_a_choice_mean_what_the_manager_says(tmp_path, word, expected, all_bad):
    said = annotation(result("choices", "better", "a", choices=[word]))
    meant: dict[str, Any] = {"First": 1, "Second": 2, "Same": "tie", "Neither": "bad"}
    take_in(tmp_path, task(said), config=CHOICES, choices=meant)
    ranking = Ranking.objects.get()
    assert (ranks(ranking), ranking.all_bad) == (expected, all_bad)


RATED = """<View><Text name="q" value="$prompt"/><Text name="a" value="$answer1"/><Text name="b" value="$answer2"/>
<Rating name="rate_a" toName="a"/><Rating name="rate_b" toName="b"/></View>"""


def test_ratings_of_each_reply_are_a_ranking_and_equal_ones_tie(tmp_path):
    def rated(*stars: int) -> dict[str, Any]:
        return annotation(*(result("rating", f"rate_{tag}", tag, rating=s) for tag, s in zip("ab", stars, strict=True)))

    take_in(tmp_path, task(rated(2, 5)), task(rated(3, 3)), config=RATED)
    assert [ranks(one) for one in Ranking.objects.order_by("pk")] == [
        {"answer1": 2, "answer2": 1}, {"answer1": 1, "answer2": 1},
    ]  # fmt: skip


def test_a_dialogue_so_far_may_be_messages(tmp_path):
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a tree."}]
    take_in(tmp_path, task(annotation(), data=DATA | {"prompt": said}))
    assert Dialogue.objects.get().messages() == said


def test_the_command_reads_the_options(tmp_path):
    path = file_of(tmp_path, task(annotation(result("choices", choices=["Second"]))), name="t.json", as_list=True)
    out = StringIO()
    options = ["--prompt-field=prompt", "--reply-field=answer1", "--reply-field=answer2", "--choice=Second=2"]
    call_command("import_feedback", path, "--format=label-studio", "--project=studio", *options, stdout=out)
    assert "1 records, 1 dialogues with 1 openings, 2 replies, 1 comparisons" in out.getvalue()
    with pytest.raises(
        CommandError, match="--choice Second=x should end with the reply's place from 1, or tie, or bad"
    ):
        call_command("import_feedback", path, "--format=label-studio", "--project=s", "--choice=Second=x")
    with pytest.raises(
        CommandError, match="format trl does not ask for reply fields; that is for argilla and label-stu"
    ):
        call_command("import_feedback", path, "--format=trl", "--project=s", "--reply-field=a")


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (task(annotation(), data=3), "field data should be the task's fields, not 3. Export as JSON, not as JSON-MIN"),
        (DATA | {"pw": "left"}, "field data should be the task's fields"),
        (
            task(annotation(), data={"prompt": "x", "answer1": "y"}),
            "field data.'answer2' is missing, which should be a re",
        ),
        (task(annotation(), data=DATA | {"prompt": ""}), "field data.'prompt' should end with what a user said"),
        (task(annotations=None), "field annotations should be a list"),
        (task(3), r"field annotations\[0\] should be an annotation with its result, not 3"),
        (task(annotation(by=None)), r"field annotations\[0\].completed_by should say who answered, not None"),
        (
            task(annotation(result("textarea", text=["x"]))),
            r"has nothing of type pairwise, choices, rating .* 'textarea'",
        ),
        (task(annotation(result(selected="up"))), r"pairwise is 'up', and nothing says which reply that prefers"),
        (
            task(annotation(result("choices", choices=["a", "b"]))),
            r"result, choices should be a choice, not \['a', 'b'\]",
        ),
        (task(annotation(result(), result())), "result has two of type pairwise. Say with --question"),
        (task(annotation(result("rating", to="asked", rating=3))), "result rates 'asked', which is no reply"),
        (task(annotation(result("rating", to="first", rating="3"))), "rating should be a number, not '3'"),
        (task(annotation(lead_time=-1)), r"field annotations\[0\].lead_time should be a number of seconds"),
        (
            task(annotation({"type": "pairwise"})),
            r"field annotations\[0\].result\[0\] should be a result with from_name",
        ),
    ],
)
def test_a_fault_is_named_by_record_and_field(tmp_path, bad, told):
    with pytest.raises(ImportRefused, match=f"record 2: .*{told}"):
        take_in(tmp_path, task(annotation()), bad)
    assert not Project.objects.exists()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("<View>", "is no XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>', "declares something of its own"),
        (PAIRWISE.replace('toName="first,second"', 'toName="first,third"'), "compares 'third', which no Text"),
        (PAIRWISE + "x", "is no XML"),
        (
            PAIRWISE.replace("</View>\n</View>", '</View><Choices name="c" toName="second,first"/></View>'),
            "two controls",
        ),
    ],
)
def test_a_configuration_that_does_not_say_it_is_refused(tmp_path, config, told):
    with pytest.raises(ImportRefused, match=told):
        take_in(tmp_path, task(annotation()), config=config)


def test_a_configuration_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ImportRefused, match="cannot be read. Check the path"):
        read_config(tmp_path / "none.xml")


def test_spoilt_tasks_are_each_refused_by_the_right_record(tmp_path):
    tasks = [task(annotation(), id=at, data=DATA | {"prompt": f"Tree {at}?"}) for at in range(1, 20)]
    wrong = {
        "data": [None, "x", [], {}, {"prompt": "x"}],
        "annotations": [None, "x", {}, [3], [{}], [annotation(result("choices"))]],
    }
    assert_each_is_refused(
        tasks, tmp_path, file_format="label-studio", wrong=wrong, is_list=True,
        choices=Choices(options=FIELDS | {"prompt_field": "prompt"}),
    )  # fmt: skip
