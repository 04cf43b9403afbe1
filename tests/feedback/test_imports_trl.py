"""TRL's shapes: what each becomes, that every record can be written again, and what is refused by name."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from feedback.errors import ImportRefused
from feedback.imports.records import Choices
from feedback.imports.taking_in import import_files
from feedback.imports.trl import shared_text
from feedback.invariants import violations
from feedback.models import (
    Candidate,
    Comparison,
    Demonstration,
    Dialogue,
    Import,
    Project,
    Prompt,
    RuleJudgement,
    Turn,
)
from tests.feedback.sources import ORIGINALS, file_of, needs_originals
from tests.feedback.spoiling import assert_each_is_refused
from tests.feedback.there_and_back import lines_of
from tests.feedback.there_and_back import written as snapshot_of

LLMBAR = ORIGINALS / "llmbar"
HI = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a tree."}]
OAK, ROSE = ([{"role": "assistant", "content": text}] for text in ("An oak.", "A rose."))
RECORDS: list[dict[str, Any]] = [
    {"prompt": "Name a tree.", "chosen": "An oak.", "rejected": "A rose.", "margin": 0.5},
    {"prompt": HI, "chosen": OAK, "rejected": ROSE},
    {"chosen": HI + OAK, "rejected": HI + ROSE, "tools": []},
    {"chosen": "The sky is blue.", "rejected": "The sky is green."},
    {"chosen": "Blue.", "rejected": "Green."},
    {"prompt": "Name a tree.", "completion": "A rose.", "label": False, "batch": 3},
    {"prompt": HI, "completion": OAK, "label": True},
    {"prompt": "Name a bird."},
    {"prompt": HI, "source": "desk"},
    {"prompt": "Same?", "chosen": "Yes.", "rejected": "Yes."},
    {"messages": HI + OAK, "split": "a"},
    {"messages": HI + OAK + [{"role": "user", "content": "Thanks."}]},
    {"prompt": "Name a bird.", "completion": "A wren."},
    {"prompt": HI, "completion": OAK + OAK},
]
pytestmark = [pytest.mark.django_db, pytest.mark.services]


def take_in(path: Path, **options: Any):
    return import_files([path], file_format="trl", slug="shapes", **options)


def again() -> list[dict[str, Any]]:
    """The records of the imported file, from the database alone."""
    return [_record(dialogue) for dialogue in Dialogue.objects.order_by("pk")]


def _record(dialogue: Dialogue) -> dict[str, Any]:
    source, prompt = dialogue.source, dialogue.messages()
    found = dict(source.get("fields", {}))
    if "begins" in source:
        return found | _imitated(dialogue)
    if "prompt_is" in source:
        found["prompt"] = prompt[0]["content"] if source["prompt_is"] == "text" else prompt
    for one in dialogue.candidates.order_by("index"):
        turns = one.turns if "prompt_is" in source else prompt + one.turns
        is_text = one.source["is"] == "text"
        found[one.source["field"]] = "".join(turn["content"] for turn in turns) if is_text else turns
        found |= {"label": one.source["label"]} if "label" in one.source else {}
    return found


def _imitated(dialogue: Dialogue) -> dict[str, Any]:
    source, turns = dialogue.source, dialogue.messages()
    last = dialogue.demonstrations.order_by("position").last()
    turns += [{"role": "assistant", "content": last.content}] if last.position == len(turns) - 1 else []
    if "completion_is" not in source:
        return {"messages": turns}
    parts = {"prompt": turns[: source["begins"]], "completion": turns[source["begins"] :]}
    return {name: part[0]["content"] if source[f"{name}_is"] == "text" else part for name, part in parts.items()}


def of(line: int) -> Dialogue:
    return Dialogue.objects.get(source_key=f"line {line}")


@pytest.fixture
def taken_in(tmp_path) -> Any:
    (report,) = take_in(file_of(tmp_path, *RECORDS))
    return report


def test_a_preference_is_a_comparison_with_one_ranking(taken_in):
    for line in (1, 2, 3):
        dialogue = of(line)
        ranks = dialogue.comparisons.get().rankings.get().ranks()
        assert {one.text: ranks[one.pk] for one in dialogue.candidates.all()} == {"An oak.": 1, "A rose.": 2}
        assert dialogue.messages()[-1] == {"role": "user", "content": "Name a tree."}
    assert [len(of(line).messages()) for line in (1, 2, 3)] == [1, 2, 2]


def test_what_two_texts_share_is_the_prompt(taken_in):
    dialogue = of(4)
    assert [turn["content"] for turn in dialogue.messages()] == ["The sky is"]
    assert [one.text for one in dialogue.candidates.all()] == [" blue.", " green."]
    assert (of(5).messages(), of(5).prompt) == ([], None)


def test_a_label_stays_with_its_reply_and_is_no_verdict(taken_in):
    assert Candidate.objects.get(dialogue=of(6)).source["label"] is False
    assert Candidate.objects.get(dialogue=of(7)).source["label"] is True
    assert not Comparison.objects.filter(dialogue__in=[of(6), of(7)]).exists()
    assert not RuleJudgement.objects.exists()


def test_a_prompt_alone_is_a_prompt_that_is_not_offered_yet(taken_in):
    assert of(8).prompt.messages == [{"role": "user", "content": "Name a bird."}]
    assert of(9).prompt.messages == HI
    assert not Prompt.objects.filter(is_active=True).exists()
    assert not of(8).candidates.exists()


def test_every_reply_of_a_dialogue_is_a_demonstration_and_the_last_is_no_turn(tmp_path):
    more = [{"role": "user", "content": "And a bush?"}, *ROSE]
    (report,) = take_in(file_of(tmp_path, {"messages": HI + OAK + more, "id": 4}, {"prompt": HI, "completion": OAK}))
    first, later, alone = Demonstration.objects.order_by("pk")
    assert [(text.position, text.content) for text in (first, later, alone)] == [
        (1, "An oak."), (3, "A rose."), (1, "An oak."),
    ]  # fmt: skip
    assert first.dialogue.messages() == [*HI, *OAK, more[0]]
    assert list(Turn.objects.filter(demonstration__isnull=False)) == [first.dialogue.turns.get(position=2)]
    assert first.dialogue.turns.get(position=2).demonstration == first
    assert first.annotator_key == "trl" and report.counts["demonstrations"] == 3
    assert list(violations()) == []


def test_accepted_dialogues_go_out_as_messages_turn_by_turn(tmp_path, settings):
    settings.DATA_DIR = tmp_path / "kept"
    settings.DATA_DIR.mkdir()
    more = [{"role": "user", "content": "And a bush?"}, *ROSE]
    take_in(file_of(tmp_path, {"messages": HI + OAK + more}), choices=Choices(accepted=True))
    rows = lines_of(snapshot_of("shapes", "demonstrations"), "data")
    assert sorted((row["messages"] for row in rows), key=len) == [HI + OAK, HI + OAK + more]


def test_every_record_can_be_written_again(taken_in):
    assert again() == RECORDS
    assert list(violations()) == []


def test_the_report_counts_the_shapes(taken_in):
    assert taken_in.notes == {
        "equal pairs, kept as ties": 1,
        "labels without a rule, kept with their reply and no verdict": 2,
        "pairs that share no opening, kept but not exported": 1,
        "preferences": 3,
        "preferences without a prompt of their own": 3,
        "prompts alone": 2,
        "dialogues to imitate": 4,
    }
    assert (taken_in.counts["dialogues"], taken_in.counts["comparisons"], taken_in.counts["rankings"]) == (14, 6, 6)
    assert (taken_in.counts["demonstrations"], taken_in.counts["accepted"]) == (4, 0)


def test_a_dry_run_changes_nothing_and_the_same_file_twice_is_noticed(tmp_path):
    path = file_of(tmp_path, *RECORDS)
    take_in(path, dry_run=True)
    assert not Project.objects.exists()
    take_in(path)
    (report,) = take_in(path)
    assert "imported already" in report.known


@given(st.text("ab ", min_size=1, max_size=6), st.text("ab ", min_size=1, max_size=6))
def test_a_shared_text_is_cut_off_where_trl_cuts_it(chosen, rejected):
    data_utils = pytest.importorskip("trl.data_utils", reason="what learning needs is not installed")
    assume(chosen[0] == rejected[0])  # else theirs looks for a blank at the end of the text
    theirs = data_utils.extract_prompt({"chosen": chosen, "rejected": rejected})
    assert chosen[: shared_text(chosen, rejected)] == theirs["prompt"]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"messages": HI}, "field messages has no reply to a user's turn that could be imitated"),
        ({"messages": "x"}, "field messages should be a list of messages, not 'x'"),
        ({"messages": [OAK[0]]}, "field messages has no reply to a user's turn"),
        ({"text": "x"}, "field text says that this is plain text"),
        ({"prompt": HI + OAK, "completion": "y"}, "field prompt should end with what a user said"),
        ({"prompt": "x", "completion": " "}, "field completion has no reply to a user's turn"),
        ({"prompt": "x", "completions": ["y"], "labels": [True]}, "field completions says that this is replies judged"),
        ({"question": "x"}, "field prompt is missing, and so are chosen and rejected"),
        ({"prompt": " "}, "field prompt is empty"),
        ({"prompt": []}, "field prompt is empty"),
        ({"prompt": 3}, "field prompt should be text, not 3"),
        ({"prompt": ["x"]}, r"field prompt\[0\] should be a message with role and content, not 'x'"),
        ({"prompt": [{"role": "bot", "content": "x"}]}, r"field prompt\[0\].role should be one of system, user"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, r"field prompt\[0\].content should be text"),
        ({"prompt": [{"role": "user", "content": "x", "name": "y"}]}, r"field prompt\[0\].'name' cannot be kept"),
        ({"prompt": "x", "chosen": "y"}, "field rejected is missing"),
        ({"prompt": "x", "completion": "y", "label": 1}, "field label should be true or false, not 1"),
        ({"chosen": "x", "rejected": OAK}, "fields chosen and rejected should both be text, or both be messages"),
        ({"chosen": "\n\nHuman: x", "rejected": "\n\nHuman: y"}, "Import this with --format hh-rlhf"),
    ],
)
def test_a_fault_is_named_by_line_and_field(tmp_path, bad, told):
    with pytest.raises(ImportRefused, match=f"line 2: {told}" if told.startswith("f") else told):
        take_in(file_of(tmp_path, RECORDS[0], bad))
    assert not Project.objects.exists()


# Real pairs in TRL's shapes


def real_pairs() -> list[dict[str, Any]]:
    """LLMBar's pairs, in every shape that a preference may have."""
    chance, found = random.Random(5), []
    for path in sorted(LLMBAR.rglob("*.json.gz")):
        for one in json.loads(gzip.decompress(path.read_bytes())):
            chosen, rejected = (one[f"output_{place}"] for place in (one["label"], 3 - one["label"]))
            prompt = [{"role": "user", "content": one["input"]}]
            ends = [[{"role": "assistant", "content": text}] for text in (chosen, rejected)]
            shapes = [
                {"prompt": one["input"], "chosen": chosen, "rejected": rejected},
                {"prompt": prompt, "chosen": ends[0], "rejected": ends[1]},
                {"chosen": prompt + ends[0], "rejected": prompt + ends[1]},
                {"chosen": f"{one['input']} {chosen}", "rejected": f"{one['input']} {rejected}"},
            ]
            found.append(chance.choice(shapes))
    return found


@needs_originals
def test_real_pairs_in_every_shape_come_in_whole(tmp_path):
    records = real_pairs()
    (report,) = take_in(file_of(tmp_path, *records))
    assert (report.counts["lines"], report.counts["comparisons"]) == (299, 299)
    assert again() == records
    assert Import.objects.get().report["counts"]["rankings"] == 299


@needs_originals
@pytest.mark.parametrize("is_list", [True, False])
def test_spoilt_pairs_are_each_refused_by_the_right_record(tmp_path, is_list):
    records = [one for one in real_pairs() if "prompt" in one][:20]
    bad = [None, 7, {}, [], ["x"], [{"role": "user"}], [{"role": "x", "content": "y"}]]
    wrong = dict.fromkeys(("prompt", "chosen", "rejected"), bad)
    assert_each_is_refused(records, tmp_path, file_format="trl", wrong=wrong, may_lack=["prompt"], is_list=is_list)
