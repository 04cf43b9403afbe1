"""Argilla: nested and flat records; rankings, ratings, choices and pairs; what is unclear is refused."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from feedback.errors import ImportRefused
from feedback.imports.records import Choices
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import Comparison, Dialogue, Project, Ranking
from tests.feedback.sources import file_of
from tests.feedback.spoiling import assert_each_is_refused

FIELDS = {"prompt": "Name a tree.", "one": "A rose.", "two": "An oak.", "note": "x"}
ANN, BOB = "5f4c9c4e-ann", "5f4c9c4e-bob"
pytestmark = [pytest.mark.django_db, pytest.mark.services]


def answer(value: Any, by: Any = ANN, **fields: Any) -> dict[str, Any]:
    return {"value": value, "user_id": by} | fields


def record(fields: Any = None, **responses: Any) -> dict[str, Any]:
    return {
        "id": "r-1",
        "fields": FIELDS if fields is None else fields,
        "metadata": {"batch": 3},
        "suggestions": {"better": {"value": ["one", "two"], "score": None, "agent": "fern"}},
        "responses": responses,
        "vectors": {},
        "_server_id": "s-1",
    }


def take_in(tmp_path: Path, *records: Any, as_list: bool = True, **options: Any):
    path = file_of(tmp_path, *records, name="records.json", as_list=as_list)
    return import_files([path], file_format="argilla", slug="argilla", choices=Choices(options=options))


def ranks(ranking: Ranking) -> dict[str, int | None]:
    return {one.source["field"]: ranking.ranks().get(one.pk) for one in ranking.comparison.candidates.all()}


def test_a_ranking_of_names_is_one_and_says_which_fields_are_replies(tmp_path):
    take_in(tmp_path, record(better=[answer(["two", "one"]), answer(["one", "two"], BOB)]))
    first, second = Ranking.objects.order_by("pk")
    assert (ranks(first), ranks(second)) == ({"one": 2, "two": 1}, {"one": 1, "two": 2})
    assert (first.annotator_key, second.annotator_key) == (ANN, BOB)
    dialogue = Dialogue.objects.get()
    assert dialogue.messages() == [{"role": "user", "content": "Name a tree."}]
    assert (dialogue.source_key, dialogue.source["fields"]) == ("r-1", {"note": "x"})
    assert dialogue.source["record"]["metadata"] == {"batch": 3}
    assert dialogue.source["record"]["suggestions"]["better"]["agent"] == "fern"
    assert list(violations()) == []


def test_values_with_ranks_may_tie_and_leave_one_out(tmp_path):
    value = [{"value": "one", "rank": 1}, {"value": "two", "rank": 1}, {"value": "three", "rank": 3}]
    take_in(tmp_path, record(FIELDS | {"three": "Moss.", "four": "Fern."}, better=[answer(value)]))
    assert ranks(Ranking.objects.get()) == {"one": 1, "two": 1, "three": 2}


def test_flat_records_say_the_same(tmp_path):
    flat = FIELDS | {
        "id": "r-1", "status": "completed", "_server_id": "s", "better.responses": [["two", "one"], ["one", "two"]],
        "better.responses.users": [ANN, BOB], "better.responses.status": ["submitted", "draft"],
        "better.suggestion": None, "why.responses": None,
    }  # fmt: skip
    (report,) = take_in(tmp_path, flat, as_list=False)
    assert ranks(Ranking.objects.get()) == {"one": 2, "two": 1}
    assert report.notes == {"answers that are drafts or were discarded, left out": 1}


def test_chosen_and_rejected_are_a_pair(tmp_path):
    fields = {"instruction": "Name a tree.", "chosen": "An oak.", "rejected": "A rose."}
    take_in(tmp_path, record(fields), record(fields | {"rejected": "An oak."}) | {"id": "r-2"})
    first, second = Ranking.objects.order_by("pk")
    assert (ranks(first), ranks(second)) == ({"chosen": 1, "rejected": 2}, {"chosen": 1, "rejected": 1})
    assert first.annotator_key == "argilla"


def test_a_choice_names_a_reply_or_means_what_the_manager_says(tmp_path):
    said = [answer("two"), answer("Same", BOB)]
    take_in(tmp_path, record(better=said), reply_fields=["one", "two"], choices={"Same": "tie"})
    assert [ranks(one) for one in Ranking.objects.order_by("pk")] == [{"one": 2, "two": 1}, {"one": 1, "two": 1}]


def test_ratings_of_each_reply_are_a_ranking_by_each_annotator(tmp_path):
    said = {"rate_1": [answer(2), answer(4, BOB)], "rate_2": [answer(5)]}
    take_in(tmp_path, record(**said), rated={"one": "rate_1", "two": "rate_2"})
    assert [ranks(one) for one in Ranking.objects.order_by("pk")] == [{"one": 2, "two": 1}, {"one": 1, "two": None}]


def test_a_record_without_an_answer_waits_to_be_ranked(tmp_path):
    (report,) = take_in(tmp_path, record(), reply_fields=["one", "two"])
    assert (Comparison.objects.count(), Ranking.objects.count()) == (1, 0)
    assert report.notes == {"records that nobody answered, which wait to be ranked": 1}


def test_several_questions_that_could_decide_need_a_name(tmp_path):
    two = record(better=[answer(["two", "one"])], kinder=[answer(["one", "two"])])
    with pytest.raises(
        ImportRefused, match="several questions could decide: 'better', 'kinder'. Say which with --ques"
    ):
        take_in(tmp_path, two)
    take_in(tmp_path, two, question="kinder")
    assert ranks(Ranking.objects.get()) == {"one": 1, "two": 2}


def test_the_command_reads_the_options(tmp_path):
    path = file_of(tmp_path, record(a=[answer(1)], b=[answer(2)]))
    out = StringIO()
    options = ["--rated=one=a", "--rated=two=b", "--prompt-field=note"]
    call_command("import_feedback", path, "--format=argilla", "--project=argilla", *options, stdout=out)
    assert ranks(Ranking.objects.get()) == {"one": 2, "two": 1}
    assert Dialogue.objects.get().messages()[0]["content"] == "x"


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (record(), "the record does not say which fields are replies"),
        (
            record({"a": "x", "b": "y", "one": "1", "two": "2"}, better=[answer(["one", "two"])]),
            "Name it with --prompt-f",
        ),
        (record(better=3), "field responses.'better' should be a list of answers, not 3"),
        (record(better=[answer(["one", "two"], None)]), r"responses.'better'\[0\].user_id should say who answered"),
        (
            record(better=[answer(["one", "two"]), answer(["one", "one"])]),
            r"\[1\].value should rank 'one', 'two', each once",
        ),
        (record(better=[answer([{"value": "one", "rank": 0}, {"value": "two", "rank": 1}])]), "each once"),
        (record(FIELDS | {"two": 3}, better=[answer(["one", "two"])]), "field fields.two should be text, not 3"),
        (
            FIELDS | {"better.responses": [["one", "two"]], "better.responses.users": []},
            "should be lists of one length",
        ),
    ],
)
def test_a_fault_is_named_by_record_and_field(tmp_path, bad, told):
    with pytest.raises(ImportRefused, match=f"record 2: .*{told}"):
        take_in(tmp_path, record(better=[answer(["one", "two"])]), bad)
    assert not Project.objects.exists()


def test_a_question_that_chooses_nothing_is_refused(tmp_path):
    with pytest.raises(ImportRefused, match="none of the questions 'why' ranks the replies or chooses one"):
        take_in(tmp_path, record(why=[answer("because")]), reply_fields=["one", "two"])


def test_spoilt_records_are_each_refused_by_the_right_record(tmp_path):
    records = [record(FIELDS | {"prompt": f"Tree {at}?"}, better=[answer(["one", "two"])]) for at in range(20)]
    wrong = {
        "fields": [None, "x", [], {}, {"prompt": "x"}, FIELDS | {"one": None}],
        "responses": ["x", [3], {"better": 3}, {"better": [{}]}, {"better": [answer(["one", "moss"])]}],
    }
    assert_each_is_refused(records, tmp_path, file_format="argilla", wrong=wrong, is_list=True)
