"""Snapshots of demonstrations: rows for trainers, every text kept, what is left out and why, the same bytes again."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from feedback import demonstration_turns, demonstrations, slots, snapshots
from feedback.errors import SnapshotEmpty, SnapshotUnusable
from feedback.exports import comparisons, files
from feedback.exports.pseudonyms import pseudonym
from feedback.invariants import violations
from feedback.models import Demonstration, Project, Snapshot
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.services, pytest.mark.usefixtures("own_data_folder")]


@pytest.fixture
def project() -> Project:
    return make.make_project(demonstrations_open=True, max_turns=3)


def accepted(project: Project, text: str, content: str, name: str = "alice", **more) -> Demonstration:
    written = make.write(make.make_write_slot(project, text=text, name=name), content, **more)
    make.review(make.make_review_slot(written))
    return written


def written(project: Project, **choices) -> Snapshot:
    return snapshots.write_now(snapshots.freeze(project=project, kind="demonstrations", ring=False, **choices))


def lines(snapshot: Snapshot, folder: str) -> list[dict]:
    found = []
    for split in files.SPLITS:
        name = f"data/{split}-00000-of-00001.jsonl" if folder == "data" else f"{folder}/{split}.jsonl"
        text = (snapshots.folder_of(snapshot) / name).read_text(encoding="utf-8")
        found += [json.loads(line) for line in text.split("\n") if line]
    return found


def test_an_accepted_reply_is_messages_and_prompt_with_completion(project: Project) -> None:
    text = accepted(project, "Why yellow?", "Too much water.", pasted_share=0.25)
    (row,) = lines(written(project), "data")
    asked, said = {"role": "user", "content": "Why yellow?"}, {"role": "assistant", "content": "Too much water."}
    assert row["messages"] == [asked, said] and (row["prompt"], row["completion"]) == ([asked], [said])
    assert (row["edited_from"], row["turn"], row["texts"], row["pasted_share"]) == (None, 1, 1, 0.25)
    assert row["annotator_id"] == pseudonym(project, text)
    assert row["reviewer_id"] == pseudonym(project, text.reviews.get()) != row["annotator_id"]
    assert row["split"] == "train" and "alice" not in json.dumps(row)


def test_an_edited_reply_is_preferred_to_the_one_it_was_made_from_and_an_unchanged_one_is_not(project: Project) -> None:
    made = make.make_comparison(project, text="Why yellow?").candidates.all()[0]
    accepted(project, "Why yellow?", "Too much water.", edited_from=made)
    same = make.make_comparison(project, text="And why brown?", texts=["Sun.", "b", "c", "d"]).candidates.all()[0]
    accepted(project, "And why brown?", "Sun.", edited_from=same)
    first, second = sorted(lines(written(project), "data"), key=lambda row: row["completion"][0]["content"] == "Sun.")
    assert first["edited_from"] == made.turns and first["model_edited_from"] == "policy-1"
    assert second["edited_from"] is None and second["model_edited_from"] == ""


def test_every_text_it_took_stands_in_the_record_with_what_was_said(project: Project) -> None:
    text = make.write(make.make_write_slot(project, text="Why?"), "First try.")
    make.review(make.make_review_slot(text), "sent_back", reason="Say more.")
    again = slots.next_slot(user=text.annotator, project=project, kind="demonstrate")
    mended = make.write(again, "Second try.", revises=1)
    edit = make.review(make.make_review_slot(mended), "edited", content="Third.").edit
    make.review(make.make_review_slot(edit, name="carol"))
    snapshot = written(project)
    (record,) = lines(snapshot, "demonstrations")
    assert [one["content"] for one in record["texts"]] == ["First try.", "Second try.", "Third."]
    said = [[(review["verdict"], review["reason"]) for review in one["reviews"]] for one in record["texts"]]
    assert said == [[("sent_back", "Say more.")], [("edited", "")], [("accepted", "")]]
    (row,) = lines(snapshot, "data")
    assert row["texts"] == 3 and row["annotator_id"] == record["texts"][2]["annotator_id"]
    assert snapshot.excluded == {"another text took its place, by its writer or a reviewer": 2}


def test_what_is_left_out_is_counted_by_reason(project: Project) -> None:
    accepted(project, "One?", "Yes.")
    make.write(make.make_write_slot(project, text="Two?"), "Waiting.")
    back = make.write(make.make_write_slot(project, text="Three?"), "Sent back.")
    make.review(make.make_review_slot(back), "sent_back", reason="No.")
    taken = make.make_write_slot(project, text="Four?")
    make.write(taken, "Taken back.")
    demonstrations.withdraw_demonstration(slot=taken)
    late = make.make_write_slot(project, text="Five?")
    make.lapse(late)
    slots.claim_slot(late.work_item.slots.get(state="free").pk, user=make.make_member(project, "dora"))
    make.write(late, "Too late.")
    snapshot = written(project)
    assert snapshot.excluded == {
        "another text took its place, by its writer or a reviewer": 1,
        "nobody has accepted it yet": 1,
        "sent back by a reviewer": 1,
        "sent too late, after somebody else had taken the slot": 1,
        "taken back by its annotator": 1,
    }
    assert [row["completion"][0]["content"] for row in lines(snapshot, "data")] == ["Yes."]
    assert list(violations()) == []


def test_a_later_turn_stands_only_on_replies_that_are_accepted(project: Project) -> None:
    first = make.write(make.make_write_slot(project, text="Why?"), "Because.")
    slot = demonstration_turns.open_next_turn(demonstration=first)
    demonstration_turns.say_next(slot=slot, text="And then?", after_position=1)
    make.review(make.make_review_slot(make.write(slot, "Then nothing.")))
    with pytest.raises(SnapshotEmpty, match="no accepted demonstration"):
        written(project)
    make.review(make.make_review_slot(first))
    snapshot = written(project)
    assert snapshot.excluded == {} and snapshot.counts["total"]["later_turns"] == 1
    longest = max(lines(snapshot, "data"), key=lambda row: row["turn"])
    assert [one["content"] for one in longest["messages"]] == ["Why?", "Because.", "And then?", "Then nothing."]
    assert longest["turn"] == 3


def test_a_later_turn_on_a_reply_that_was_sent_back_is_left_out(project: Project) -> None:
    accepted(project, "Another?", "Yes.")
    first = make.write(make.make_write_slot(project, text="Why?"), "Because.")
    slot = demonstration_turns.open_next_turn(demonstration=first)
    demonstration_turns.say_next(slot=slot, text="And then?", after_position=1)
    make.review(make.make_review_slot(make.write(slot, "Then nothing.")))
    make.review(make.make_review_slot(first), "sent_back", reason="Say more.")
    assert written(project).excluded == {
        "it goes on from a reply that is not accepted": 1, "sent back by a reviewer": 1,
    }  # fmt: skip


def test_splits_and_origin_are_filters(project: Project) -> None:
    accepted(project, "One?", "Yes.")
    with pytest.raises(SnapshotEmpty):
        written(project, filters={"splits": ["test"]})
    with pytest.raises(SnapshotEmpty):
        written(project, filters={"origin": "imports"})
    assert written(project, filters={"origin": "people", "splits": ["train"]}).counts["total"]["demonstrations"] == 1


def test_the_same_content_is_the_same_bytes_in_pieces_of_any_size(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        accepted(project, f"Question {number}?", "The same reply to each.", keep_alike=True)
    for name in ("alice", "carol"):  # twins: the same reply to the same prompt, by two people
        slot = make.make_write_slot(project, text="Question 0?", name=name, wanted=3) if name == "carol" else None
        if slot is not None:
            make.review(make.make_review_slot(make.write(slot, "The same reply to each.", keep_alike=True), name="dan"))
    first = written(project)
    monkeypatch.setattr(comparisons, "CHUNK", 1)
    second = written(project)
    assert first.sha256 == second.sha256 and snapshots.damaged_files(second) == []
    names = [row["demonstration_id"] for row in lines(first, "data")]
    assert len(set(names)) == 4 and sum(name.endswith("-2") for name in names) == 1


def test_the_command_writes_a_folder_that_datasets_loads(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="what learning needs is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    made = make.make_comparison(project, text="Why yellow?").candidates.all()[0]
    accepted(project, "Why yellow?", "Too much water.", edited_from=made)
    accepted(project, "Another?", "Yes, of course.")
    out, told = tmp_path / "out", StringIO()
    call_command("export", "--project=plant-desk", "--kind=demonstrations", f"--out={out}", stdout=told)
    assert "2 demonstrations, 1 edits, 0 later turns, 0 rewritten" in told.getvalue()
    rows = datasets.load_dataset(str(out))["train"]
    assert sorted(rows["completion"], key=str) == [
        [{"role": "assistant", "content": "Too much water."}], [{"role": "assistant", "content": "Yes, of course."}],
    ]  # fmt: skip
    pairs = rows.filter(lambda row: row["edited_from"])
    pairs = pairs.rename_columns({"completion": "chosen", "edited_from": "rejected"})
    assert len(pairs) == 1 and pairs[0]["rejected"] == made.turns
    card = (out / "README.md").read_text()
    assert 'tags: ["sft", "rlhf", "trl", "nestbox"]' in card and "Nothing was left out." in card


def test_training_on_preferences_refuses_it(project: Project) -> None:
    accepted(project, "One?", "Yes.")
    with pytest.raises(SnapshotUnusable, match="holds demonstrations, not rankings"):
        list(snapshots.snapshot_rows(written(project)))


def test_training_reads_each_accepted_reply_with_the_dialogue_so_far(project: Project) -> None:
    accepted(project, "One?", "Yes.")
    make.write(make.make_write_slot(project, text="Two?"), "Nobody has said anything of it.")
    snapshot = written(project)
    (row,), (exported,) = snapshots.demonstrated_rows(snapshot), lines(snapshot, "data")
    assert (row.key, row.split) == (exported["demonstration_id"], "train")
    assert (row.prompt, row.completion) == (exported["prompt"], exported["completion"])
    assert list(snapshots.demonstrated_rows(snapshot, ("validation", "test"))) == []


def test_training_on_demonstrations_refuses_others(project: Project) -> None:
    make.make_ranking(comparison=make.make_comparison(project))
    snapshot = snapshots.write_now(snapshots.freeze(project=project, ring=False))
    with pytest.raises(SnapshotUnusable, match="holds preference, not demonstrations"):
        list(snapshots.demonstrated_rows(snapshot))
