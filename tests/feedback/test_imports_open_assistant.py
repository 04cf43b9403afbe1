"""Open-Assistant: sibling replies with ranks become comparisons; every message can be written again from the rows."""

from __future__ import annotations

import json
import re

import pytest

from feedback.errors import ImportRefused
from feedback.imports import open_assistant
from feedback.imports.reading import Malformed
from feedback.imports.taking_in import import_files, inspect
from feedback.invariants import violations
from feedback.models import Candidate, Comparison, Dialogue, Import, Turn
from tests.feedback.sources import ORIGINALS, OURS, flat, needs_originals, open_assistant_trees, read_lines

TREES = OURS / "open_assistant_trees.jsonl"
NESTED = OURS / "open_assistant_nested.jsonl"
MESSAGES = OURS / "open_assistant_messages.jsonl"
pytestmark = [pytest.mark.django_db, pytest.mark.services]


def take_in(path, slug="trees"):
    (report,) = import_files([path], file_format="open-assistant", slug=slug)
    return report


def comparison_after(text: str) -> Comparison:
    (found,) = [one for one in Comparison.objects.all() if one.dialogue.messages()[-1]["content"] == text]
    return found


def ranked(comparison: Comparison) -> dict[str, int | None]:
    given = comparison.rankings.get().ranks()
    return {one.text: given.get(one.pk) for one in comparison.candidates.order_by("index")}


def test_ranks_from_zero_become_places_from_one():
    take_in(TREES)
    assert ranked(comparison_after("How do I propagate a succulent?")) == {
        "Lay a leaf on dry soil and wait.": 2,
        "Take a healthy leaf, let its wound dry for two days, then lay it on dry soil.": 1,
        "Buy a new one.": 3,
    }


def test_replies_deeper_in_a_tree_are_compared_after_their_own_path():
    take_in(TREES)
    deeper = comparison_after("For how long?")
    assert [turn["role"] for turn in deeper.dialogue.messages()] == ["user", "assistant", "user"]
    assert (deeper.after_position, ranked(deeper)) == (2, {"Two to three weeks.": 1, "A while.": 2})


def test_equal_ranks_tie_and_a_reply_without_one_stays_unranked():
    take_in(TREES)
    places = ranked(comparison_after("Warum fallen die Blätter?"))
    assert places == {"Zu wenig Licht.": 1, "Zu dunkel.": 1, "": 2, "Weil Herbst ist.": None}
    assert Candidate.objects.get(comparison__isnull=False, is_empty=True).text == ""


def test_a_single_ranked_reply_is_kept_and_makes_no_comparison():
    take_in(TREES)
    single = Candidate.objects.get(source__model_name="desk-1")
    assert (single.comparison, single.source["rank"]) == (None, 0)


def test_ranks_of_a_persons_replies_are_kept_and_not_compared():
    report = take_in(TREES)
    kept = Candidate.objects.filter(source__role="prompter").order_by("index")
    assert [(one.text, one.source["rank"], one.comparison) for one in kept] == [
        ("For how long?", 1, None),
        ("On any soil?", 0, None),
    ]
    assert report.notes["ranks of prompter replies, kept with the reply and not compared"] == 2


def test_what_the_source_says_of_a_message_stays_with_it():
    take_in(TREES)
    source = Candidate.objects.get(source__rank=1, comparison__dialogue__prompt__isnull=False, index=0).source
    assert source["labels"]["quality"] == {"value": 0.75, "count": 3}
    assert source["emojis"] == {"+1": 1}


def test_the_report_counts_trees_replies_ties_and_gaps():
    assert take_in(TREES).notes == {
        "trees": 4,
        "assistant replies": 12,
        "prompter replies": 2,
        "comparisons with ties": 1,
        "comparisons with unranked replies": 1,
        "empty replies, kept and flagged": 1,
        "ranks of prompter replies, kept with the reply and not compared": 2,
        "ranks of single assistant replies, kept with the reply": 1,
    }


def test_a_first_message_without_replies_is_kept():
    take_in(TREES)
    assert Dialogue.objects.filter(prompt__messages=[{"role": "user", "content": "Is anybody here?"}]).count() == 1


def test_trees_can_be_written_again():
    take_in(TREES)
    rebuilt = [tree | {"prompt": message} for tree, message in open_assistant_trees(Import.objects.get())]
    assert rebuilt == read_lines(TREES)


def test_nested_messages_can_be_written_again():
    take_in(NESTED)
    assert [message for _, message in open_assistant_trees(Import.objects.get())] == read_lines(NESTED)


def test_single_messages_can_be_written_again():
    take_in(MESSAGES)
    rebuilt = [one for _, message in open_assistant_trees(Import.objects.get()) for one in flat(message)]
    assert rebuilt == read_lines(MESSAGES)


def test_the_three_layouts_make_the_same_comparisons():
    for place, path in enumerate((TREES, NESTED, MESSAGES)):
        take_in(path, slug=f"layout-{place}")
    made = [
        sorted(str(ranked(one)) for one in Comparison.objects.filter(dialogue__project__slug=f"layout-{place}"))
        for place in range(3)
    ]
    assert made[0] == made[1] == made[2]
    assert len(made[0]) == 3


def test_the_record_stays_sound():
    take_in(TREES)
    assert list(violations()) == []


def message(name: str, parent: str | None = None, **fields) -> dict:
    role = fields.pop("role", "prompter" if parent is None else "assistant")
    return {"message_id": name, "parent_id": parent, "text": f"I am {name}", "role": role} | fields


def written(tmp_path, lines: list[dict]):
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def refusal(tmp_path, lines: list[dict]) -> str:
    with pytest.raises(ImportRefused) as caught:
        inspect(written(tmp_path, lines), "open-assistant")
    return caught.value.message


def nested(depth: int) -> dict:
    inner = message(f"m{depth}", f"m{depth - 1}", role="assistant", replies=[])
    for place in range(depth - 1, 0, -1):
        inner = message(f"m{place}", f"m{place - 1}", role="assistant", replies=[inner])
    return message("m0", replies=[inner])


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([{"text": "?"}], "line 1: there is neither a field prompt (a tree) nor a field message_id"),
        ([{"prompt": 3}], "line 1: field prompt should be a message, not 3"),
        ([{"prompt": message("a", replies={})}], "line 1: field prompt.replies should be a list"),
        ([{"prompt": message("a", replies=["b"])}], "line 1: field prompt.replies[0] should be a message, not 'b'"),
        ([{"prompt": message("a", role="robot")}], "line 1: field prompt.role should be prompter or assistant"),
        ([{"prompt": message("a", role="assistant")}], "line 1: field prompt.role should be prompter"),
        ([{"prompt": message("")}], "line 1: field prompt.message_id should have 1 to 200 characters"),
        ([{"prompt": message("a", replies=[message("b", "x")])}], "line 1: field prompt.replies[0].parent_id names"),
        ([{"prompt": message("a", rank=-1)}], "line 1: field prompt.rank should be a whole number from 0"),
        ([{"prompt": message("a", rank=True)}], "line 1: field prompt.rank should be a whole number from 0"),
        ([{"prompt": message("a")}, {"prompt": message("a")}], "line 2: message_id 'a' stands in this file twice"),
        ([message("a", replies=[]), message("b", "a", replies=[])], "line 2: field parent_id should be empty"),
        ([message("a"), message("c", "b")], "line 2: parent_id 'b' is not in its tree"),
        ([message("a"), message("b", "a"), message("b", "a")], "line 3: message_id 'b' stands in its tree twice"),
        ([message("a"), message("b", "a", replies=[message("c", "b")])], "line 2: field replies is filled"),
        ([message("a"), message("b", "c"), message("c", "b")], "line 1: messages of this tree answer each other"),
        ([message("a", role="assistant")], "line 1: field role should be prompter"),
        (
            [message("a", message_tree_id="a"), message("b", None, message_tree_id="a")],
            "line 2: its tree has 2 first messages",
        ),
        (
            [message("a"), message("b"), message("c", "a", message_tree_id="a")],
            "line 3: tree 'a' goes on here. Sort the file",
        ),
        ([message("a", message_tree_id="t" * 201)], "line 1: field message_tree_id should have at most 200"),
        ([nested(201)], "line 1: the tree is more than 200 messages deep"),
        ([message("m0"), *(message(f"m{i}", f"m{i - 1}") for i in range(1, 202))], "line 201: the tree is more than"),
    ],
)
def test_a_tree_that_does_not_hold_together_is_named(tmp_path, lines, told):
    assert told in refusal(tmp_path, lines)


TWO_REPLIES = [message("a"), message("b", "a"), message("c", "a")]


def as_tree(lines: list[dict]) -> dict:
    """A first message with all others as its replies."""
    return {"prompt": lines[0] | {"replies": lines[1:]}}


@pytest.mark.parametrize(
    ("lines", "told"), [(TWO_REPLIES, "line 3: the tree has"), ([as_tree(TWO_REPLIES)], "line 1: the tree has")]
)
def test_a_tree_of_very_many_messages_is_refused(tmp_path, monkeypatch, lines, told):
    monkeypatch.setattr(open_assistant, "MOST_MESSAGES", 3)
    assert take_in(written(tmp_path, lines)).counts["candidates"] == 2
    monkeypatch.setattr(open_assistant, "MOST_MESSAGES", 2)
    assert f"{told} more than 2 messages. Is something repeated in it?" in refusal(tmp_path, lines)


def test_the_lines_of_a_tree_are_gathered_up_to_what_one_line_may_have(tmp_path, monkeypatch):
    path = written(tmp_path, TWO_REPLIES)
    monkeypatch.setattr(open_assistant, "MOST_BYTES", path.stat().st_size)
    assert take_in(path).counts["candidates"] == 2
    monkeypatch.setattr(open_assistant, "MOST_BYTES", path.stat().st_size - 1)
    assert "line 3: the lines of this tree have more than" in refusal(tmp_path, TWO_REPLIES)


def test_a_tree_too_large_is_told_once_forgotten_and_the_next_one_read(monkeypatch):
    monkeypatch.setattr(open_assistant, "MOST_MESSAGES", 3)
    trees, faults, most = open_assistant.FlatTrees(), [], 0
    lines = [message("a"), *(message(f"r{n}", "a") for n in range(50)), message("z"), message("y", "z")]
    for number, line in enumerate(lines, start=1):
        try:
            assert list(trees.take(number, line, 100)) == []
        except Malformed:
            faults.append(number)
        most = max(most, len(trees.messages))
    (last,) = trees.finish()
    assert (faults, most, last.root.message_id, len(last.root.replies)) == ([4], 3, "z", 1)


def test_a_long_text_below_which_much_was_said_is_refused_before_it_is_repeated(tmp_path, monkeypatch):
    lines = [message("a", text="x" * 1000)]
    for n in range(10):
        lines += [message(f"b{n}", "a", text="y"), message(f"c{n}", f"b{n}", role="prompter", text="z" * 5000)]
    assert take_in(written(tmp_path, lines)).counts["dialogues"] == 11
    assert sum(len(turn.content) for turn in Turn.objects.all()) == 1000 + 10 * 1001
    monkeypatch.setattr(open_assistant, "MOST_WRITTEN", 1000 + 10 * 1001)
    assert inspect(written(tmp_path, lines), "open-assistant").counts["dialogues"] == 11
    monkeypatch.setattr(open_assistant, "MOST_WRITTEN", 1000 + 10 * 1001 - 1)
    told = refusal(tmp_path, lines)
    assert "line 1: the tree's dialogues would have 11,010 characters, as each repeats all before it; 11,009" in told


def test_a_fault_is_told_once_and_the_lines_after_it_are_still_read(tmp_path):
    lines = [message("a"), message("c", "b"), message("d"), message("f", "e")]
    told = refusal(tmp_path, lines)
    assert re.findall(r"line \d+", told) == ["line 2", "line 4"]


@needs_originals
@pytest.mark.parametrize("name", ["tree", "message"])
def test_the_original_files_come_in_whole(name):
    path = ORIGINALS / "open-assistant" / f"en_100_{name}.dev.jsonl.gz"
    report = take_in(path)
    assert (report.notes["trees"], report.counts["candidates"] + 69) == (69, 816)
    assert Comparison.objects.count() == report.counts["comparisons"] == 150
    sizes = [one.candidates.count() for one in Comparison.objects.all()]
    assert (min(sizes), max(sizes)) == (2, 8)
    rebuilt = list(open_assistant_trees(Import.objects.get()))
    lines = read_lines(path)
    assert [tree | {"prompt": root} if name == "tree" else root for tree, root in rebuilt] == lines
