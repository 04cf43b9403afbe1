"""GSM8K: answers become demonstrations, models' solutions are ranked by the truth, and tests stay tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedback.errors import ImportRefused
from feedback.imports.records import Choices
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import Comparison, Demonstration, Dialogue, Import, Project, PromptGroup, Ranking
from tests.feedback.sources import ORIGINALS, file_of, needs_originals, read_lines
from tests.feedback.spoiling import NOT_TEXT, assert_each_is_refused
from tests.feedback.there_and_back import again as exported_again
from tests.feedback.there_and_back import assert_the_same, written

TRAIN = ORIGINALS / "gsm8k" / "train.dev.jsonl.gz"
SOLUTIONS = ORIGINALS / "gsm8k" / "example_model_solutions.dev.jsonl.gz"
ANSWERED = {"question": "How many legs have two hens?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}
SOLVED = {
    "question": "And three?",
    "ground_truth": "A: 6",
    "small": {"is_correct": False, "solution": "A: 5"},
    "large": {"is_correct": True, "solution": "A: 6"},
    "other": {"is_correct": False, "solution": ""},
}
pytestmark = [pytest.mark.django_db, pytest.mark.services, pytest.mark.usefixtures("own_data_folder")]


def take_in(*paths: Path, slug: str = "sums", **options: Any):
    return import_files(paths, file_format="gsm8k", slug=slug, **options)


def again(source: Import) -> list[dict[str, Any]]:
    """The lines of an imported file, from the database alone."""
    found = []
    for one in Dialogue.objects.filter(source_import=source).order_by("pk"):
        record = {"question": one.turns.get().content} | one.source.get("fields", {})
        for text in one.demonstrations.all():
            record["answer"] = text.content
        if "ground_truth" in one.source:
            record["ground_truth"] = one.source["ground_truth"]
        for candidate in one.candidates.all():
            said = {"is_correct": candidate.source["is_correct"], "solution": candidate.text}
            record[candidate.source["model_name"]] = said
        found.append(record)
    return found


def test_an_answer_is_a_demonstration_that_waits_for_a_review(tmp_path):
    (report,) = take_in(file_of(tmp_path, ANSWERED))
    text = Demonstration.objects.get()
    assert (text.content, text.annotator_key, text.position) == (ANSWERED["answer"], "gsm8k", 0)
    assert text.dialogue.messages() == [{"role": "user", "content": ANSWERED["question"]}]
    assert list(Demonstration.objects.waiting()) == [text]
    assert (report.counts["demonstrations"], report.counts["accepted"]) == (1, 0)
    assert not text.dialogue.prompt.is_active
    assert list(violations()) == []


def test_solutions_are_ranked_by_the_truth_and_equals_tie(tmp_path):
    (report,) = take_in(file_of(tmp_path, SOLVED))
    ranking = Ranking.objects.get()
    ranks = {one.source["model_name"]: ranking.ranks()[one.pk] for one in ranking.comparison.candidates.all()}
    assert ranks == {"large": 1, "small": 2, "other": 2}
    assert (ranking.annotator_key, ranking.all_bad, ranking.source) == ("gsm8k", False, {"gold": True})
    assert ranking.comparison.dialogue.source == {"gold": True, "ground_truth": "A: 6"}
    assert report.notes == {"questions with 1 of 3 solutions correct": 1}


@pytest.mark.parametrize(("truth", "all_bad"), [(True, False), (False, True)])
def test_where_all_are_alike_all_tie_and_none_is_good_where_none_is_correct(tmp_path, truth, all_bad):
    take_in(
        file_of(tmp_path, SOLVED | {name: SOLVED[name] | {"is_correct": truth} for name in ("small", "large", "other")})
    )
    ranking = Ranking.objects.get()
    assert (set(ranking.ranks().values()), ranking.all_bad) == ({1}, all_bad)


def test_solutions_and_files_of_tests_lie_on_the_test_side(tmp_path):
    take_in(file_of(tmp_path, SOLVED), file_of(tmp_path, ANSWERED, name="test.jsonl"))
    assert set(PromptGroup.objects.values_list("split", flat=True)) == {"test"}


def test_fields_besides_are_kept(tmp_path):
    path = file_of(tmp_path, ANSWERED | {"level": 3}, SOLVED | {"batch": "x"})
    take_in(path)
    assert again(Import.objects.get()) == read_lines(path)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"question": "Why?"}, "field ground_truth is missing. Is this the format you named"),
        ({"question": "Why?", "ground_truth": "x"}, "there should be an answer, or the solutions of two models"),
        (ANSWERED | {"answer": " "}, "field answer is empty"),
        (ANSWERED | {"question": ""}, "field question is empty"),
        (SOLVED | {"large": {"is_correct": 1, "solution": "x"}}, "field 'large'.is_correct should be true or false"),
        (SOLVED | {"large": {"is_correct": True}}, "field 'large'.solution is missing"),
    ],
)
def test_a_fault_is_named_by_line_and_field(tmp_path, bad, told):
    with pytest.raises(ImportRefused, match=f"line 2: {told}"):
        take_in(file_of(tmp_path, ANSWERED, bad))
    assert not Project.objects.exists()


@needs_originals
def test_the_original_answers_come_in_whole_and_go_out_the_same(tmp_path):
    (report,) = take_in(TRAIN, choices=Choices(accepted=True))
    assert (report.counts["demonstrations"], report.counts["accepted"], report.counts["openings"]) == (2000, 2000, 2000)
    assert again(Import.objects.get()) == read_lines(TRAIN)
    assert list(violations()) == []
    snapshot = written("sums", "demonstrations")
    assert snapshot.counts["total"]["demonstrations"] == 2000
    assert_the_same(snapshot, exported_again(snapshot, tmp_path))


@needs_originals
def test_the_original_solutions_come_in_whole():
    (report,) = take_in(SOLUTIONS)
    assert (report.counts["comparisons"], report.counts["candidates"], report.counts["rankings"]) == (907, 3628, 907)
    told = [report.notes[f"questions with {count} of 4 solutions correct"] for count in range(5)]
    assert told == [307, 210, 152, 133, 105]
    assert again(Import.objects.get()) == read_lines(SOLUTIONS)
    assert Comparison.objects.filter(dialogue__prompt__group__split="test").count() == 907
    assert Ranking.objects.filter(all_bad=True).count() == 307
    assert list(violations()) == []


@needs_originals
def test_spoilt_originals_are_each_refused_by_the_right_line(tmp_path):
    empty = dict.fromkeys(("question", "answer"), [*NOT_TEXT, "", "  "])
    assert_each_is_refused(read_lines(TRAIN)[:20], tmp_path, file_format="gsm8k", wrong=empty, is_list=False)
    wrong = {
        "question": [*NOT_TEXT, ""],
        "ground_truth": NOT_TEXT,
        "6b_finetuning": [{}, {"solution": "x"}, {"is_correct": True}, {"is_correct": 1, "solution": "x"}],
    }
    assert_each_is_refused(
        read_lines(SOLUTIONS)[:20], tmp_path, file_format="gsm8k", wrong=wrong, is_list=True, may_lack=["6b_finetuning"]
    )
