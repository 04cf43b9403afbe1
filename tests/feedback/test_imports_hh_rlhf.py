"""hh-rlhf: what each odd pair becomes, and that every line can be written again from the rows."""

from __future__ import annotations

import pytest
from django.core.management import call_command

from feedback.imports.hh_rlhf import shared_turns, split_transcript
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import Comparison, Import, Project, Ranking
from tests.feedback.sources import ORIGINALS, OURS, hh_rlhf_lines, needs_originals, read_lines

FILE = OURS / "hh_rlhf.jsonl"
pytestmark = [pytest.mark.django_db, pytest.mark.services]


@pytest.fixture
def taken_in(db) -> dict[int, Comparison]:
    """The fixture file's comparisons by line number."""
    import_files([FILE], file_format="hh-rlhf", slug="pairs")
    return {int(comparison.source_key.removeprefix("line ")): comparison for comparison in Comparison.objects.all()}


def said(turns: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in turns]


def candidates(comparison: Comparison) -> list[list[tuple[str, str]]]:
    return [said(candidate.turns) for candidate in comparison.candidates.order_by("index")]


def ranks(comparison: Comparison) -> list[int]:
    given = comparison.rankings.get().ranks()
    return [given[candidate.pk] for candidate in comparison.candidates.order_by("index")]


def test_a_pair_becomes_a_comparison_of_two_replies(taken_in):
    pair = taken_in[1]
    assert said(pair.dialogue.messages()) == [("user", "Why are my basil leaves yellow?")]
    assert candidates(pair) == [
        [("assistant", "Most often it is too much water. Let the top of the soil dry first.")],
        [("assistant", "Leaves are yellow sometimes.")],
    ]
    assert ranks(pair) == [1, 2]
    assert pair.after_position == 0


def test_the_dialogue_both_share_is_the_prompt(taken_in):
    pair = taken_in[2]
    assert [role for role, _ in said(pair.dialogue.messages())] == ["user", "assistant", "user"]
    assert pair.after_position == 2
    assert pair.dialogue.prompt.messages == [{"role": "user", "content": "My fern is dry."}]


def test_a_pair_that_differs_earlier_has_candidates_of_several_turns(taken_in):
    pair = taken_in[3]
    assert said(pair.dialogue.messages()) == [("user", "Can I move my fig?")]
    assert [[role for role, _ in turns] for turns in candidates(pair)] == [["assistant", "user", "assistant"]] * 2


def test_a_pair_that_differs_in_what_the_person_says_keeps_that_in_the_candidates(taken_in):
    pair = taken_in[13]
    assert [role for role, _ in said(pair.dialogue.messages())] == ["user", "assistant"]
    assert candidates(pair)[0] == [("user", "Yes, many."), ("assistant", "Then take a larger one.")]


def test_an_equal_pair_is_a_tie_of_two_candidates(taken_in):
    assert candidates(taken_in[4]) == [[("assistant", "Yes, a lot of it.")]] * 2
    assert ranks(taken_in[4]) == [1, 1]


def test_an_empty_reply_is_kept_and_flagged(taken_in):
    assert candidates(taken_in[5])[1] == [("assistant", "")]
    assert [one.is_empty for one in taken_in[5].candidates.order_by("index")] == [False, True]


def test_a_transcript_that_ends_with_the_person_is_kept_whole(taken_in):
    assert candidates(taken_in[6])[1] == [("assistant", "I cannot say."), ("user", "Why can't you?")]


def test_a_pair_without_a_shared_opening_is_kept_without_a_prompt(taken_in):
    pair = taken_in[10]
    assert pair.dialogue.prompt is None
    assert pair.dialogue.messages() == []
    assert [len(turns) for turns in candidates(pair)] == [2, 2]


def test_fields_beside_the_pair_are_kept(taken_in):
    assert taken_in[9].dialogue.source["fields"] == {
        "batch": "online-2", "seconds": 12.5, "tags": ["depth", {"kind": "fact"}],
    }  # fmt: skip


def test_openings_that_differ_in_case_only_lie_in_one_group(taken_in):
    one, other = taken_in[1].dialogue.prompt, taken_in[11].dialogue.prompt
    assert one != other
    assert one.group == other.group


def test_openings_are_not_offered_to_annotators(taken_in):
    assert not Project.objects.get(slug="pairs").prompts.active().exists()


def test_an_imported_ranking_names_its_import_and_nobody_else(taken_in):
    ranking = taken_in[1].rankings.get()
    assert (ranking.source_import, ranking.annotator, ranking.slot) == (Import.objects.get(), None, None)
    assert ranking.annotator_key == "hh-rlhf"


def test_the_report_counts_what_is_unusual(taken_in):
    assert Import.objects.get().report["notes"] == {
        "equal pairs, kept as ties": 1,
        "pairs in which one speaker has two turns in a row": 1,
        "pairs of which one ends in a human turn": 1,
        "pairs that differ before their last turn": 4,
        "pairs that share no opening, kept but not exported": 1,
        "pairs with an empty reply, kept and flagged": 1,
    }


def test_every_line_can_be_written_again(taken_in):
    assert hh_rlhf_lines(Import.objects.get()) == read_lines(FILE)


def test_the_record_stays_sound(taken_in):
    assert list(violations()) == []


def test_a_transcript_within_another_leaves_each_a_turn_of_its_own():
    short = split_transcript("\n\nHuman: Hi\n\nAssistant: Yes?", "chosen")
    long = split_transcript("\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Help", "rejected")
    assert shared_turns(short, long) == 1


@needs_originals
@pytest.mark.parametrize(
    ("part", "pairs", "differing", "equal", "empty", "ends_human"),
    [
        ("helpful-base", 1242, 6, 1, 4, 0),
        ("harmless-base", 1302, 3, 0, 3, 0),
        ("helpful-online", 600, 1, 2, 0, 1),
        ("helpful-rejection-sampled", 1200, 1, 10, 0, 0),
    ],
)
def test_the_original_files_come_in_whole(part, pairs, differing, equal, empty, ends_human):
    path = ORIGINALS / "hh-rlhf" / part / "test.dev.jsonl.gz"
    (report,) = import_files([path], file_format="hh-rlhf", slug="originals")
    assert report.counts["comparisons"] == Ranking.objects.count() == pairs
    assert report.notes["pairs that differ before their last turn"] == differing
    assert report.notes["equal pairs, kept as ties"] == equal
    assert report.notes["pairs with an empty reply, kept and flagged"] == empty
    assert report.notes["pairs of which one ends in a human turn"] == ends_human
    assert hh_rlhf_lines(Import.objects.get()) == read_lines(path)


@needs_originals
def test_rows_are_written_many_at_a_time(django_assert_max_num_queries):
    path = ORIGINALS / "hh-rlhf" / "helpful-base" / "test.dev.jsonl.gz"
    with django_assert_max_num_queries(2000):  # one row at a time it would be 17,000
        call_command("import_feedback", str(path), "--format=hh-rlhf", "--project=originals", verbosity=0)
    assert Comparison.objects.count() == 1242
