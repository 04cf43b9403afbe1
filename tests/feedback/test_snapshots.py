"""Snapshots: what is in them, the same bytes again, whole or damaged, written by whoever holds the lease."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from django.conf import settings as django_settings

from feedback import dialogues, queue, rankings, snapshots, tasks
from feedback.errors import SnapshotEmpty, SnapshotUnusable
from feedback.exports import comparisons, files
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import AuditEntry, Project, Ranking, Snapshot
from tests import make
from tests.feedback.sources import OURS

# What the two fixture files come to: not a number of our choosing, but one that every database must agree on.
IDENTITY = "2913954cf033ff25405ba40007474c88cc6e083199be08d061475115a24624b5"
pytestmark = [pytest.mark.django_db, pytest.mark.services, pytest.mark.usefixtures("own_data_folder")]


def frozen(project: Project | None = None, **choices) -> Snapshot:
    return snapshots.freeze(project=project or make.make_project(), ring=False, **choices)


def written(project: Project | None = None, **choices) -> Snapshot:
    return snapshots.write_now(frozen(project, **choices))


def lines(snapshot: Snapshot, name: str) -> list[dict]:
    text = (snapshots.folder_of(snapshot) / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def pairs(snapshot: Snapshot, split: str = "train") -> list[dict]:
    return lines(snapshot, f"data/{split}-00000-of-00001.jsonl")


def all_bytes(snapshot: Snapshot) -> dict[str, bytes]:
    folder = snapshots.folder_of(snapshot)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rank_three(**answer) -> Ranking:
    comparison = make.make_comparison(candidates=3, texts=["Water less.", "Water more.", "Buy a cat."])
    places = answer.pop("places", [2, 1, 3])
    return make.make_ranking(comparison=comparison, ranks=make.ranks_by_index(comparison, places), **answer)


# What is in it


def test_a_ranking_of_three_becomes_three_pairs_and_one_lossless_line():
    rank_three(strength=4, seconds=9.5)
    snapshot = written()
    told = [(row["chosen"][0]["content"], row["rejected"][0]["content"], row["margin"]) for row in pairs(snapshot)]
    assert told == [
        ("Water less.", "Buy a cat.", 0.0),
        ("Water more.", "Water less.", 1.0),
        ("Water more.", "Buy a cat.", 1.0),
    ]
    assert pairs(snapshot)[0]["prompt"] == [{"role": "user", "content": "Why are my basil leaves yellow?"}]
    (line,) = lines(snapshot, "rankings/train.jsonl")
    (answer,) = line["rankings"]
    assert (answer["ranks"], answer["strength"], answer["seconds"]) == ([2, 1, 3], 4, 9.5)


def test_ties_all_bad_flags_and_unranked_replies_are_kept_in_the_rankings():
    tied = make.make_comparison(text="Tied?", candidates=3)
    first = tied.candidates.get(index=0).pk
    second = tied.candidates.get(index=1).pk
    make.make_ranking(comparison=tied, ranks={first: 1, second: 1}, flags={second: ["wrong", "rude"]})
    bad = make.make_comparison(text="All bad?", candidates=3)
    make.make_ranking(comparison=bad, ranks={}, all_bad=True, strength=None)
    snapshot = written()
    assert pairs(snapshot) == []
    kept = {row["prompt"][0]["content"]: row["rankings"][0] for row in lines(snapshot, "rankings/train.jsonl")}
    assert kept["Tied?"]["ranks"] == [1, 1, None]
    assert kept["Tied?"]["flags"] == [[], ["rude", "wrong"], []]
    assert (kept["All bad?"]["ranks"], kept["All bad?"]["all_bad"]) == ([None, None, None], True)
    assert snapshot.counts["total"] == {
        "comparisons": 2, "candidates": 6, "empty_candidates": 0, "rankings": 2, "all_bad": 1, "pairs": 0,
        "tied_pairs": 1,
    }  # fmt: skip


def test_the_order_shown_is_told_by_the_candidates_places():
    ranking = rank_three()
    snapshot = written()
    (line,) = lines(snapshot, "rankings/train.jsonl")
    index = {candidate.pk: candidate.index for candidate in ranking.comparison.candidates.all()}
    assert line["rankings"][0]["shown_order"] == [index[pk] for pk in ranking.shown_order]


def test_a_later_turn_has_the_dialogue_so_far_as_its_prompt_and_the_dialogues_name():
    slot = make.make_chat()
    make.make_ranking(slot)
    request = dialogues.send_message(slot=slot, text="And then?", after_position=0)
    make.answer_request(request)
    make.make_ranking(slot, slot.work_item.dialogue.comparisons.get(after_position=2))
    rows = lines(written(), "rankings/train.jsonl")
    assert sorted([len(row["prompt"]) for row in rows]) == [1, 3]
    assert len({row["dialogue_id"] for row in rows}) == 1
    assert len({row["comparison_id"] for row in rows}) == 2


def test_openings_lie_in_the_split_of_their_group():
    for split in ("train", "validation", "test"):
        comparison = make.make_comparison(text=f"A {split} opening", split=split)
        make.make_ranking(comparison=comparison)
    snapshot = written()
    for split in ("train", "validation", "test"):
        assert {row["prompt"][0]["content"] for row in pairs(snapshot, split)} == {f"A {split} opening"}
        assert {row["split"] for row in pairs(snapshot, split)} == {split}


def test_only_the_answer_in_force_is_in_it_and_the_others_are_told():
    first = make.make_ranking(make.make_chat())
    backwards = make.ranks_by_index(first.comparison, [4, 3, 2, 1])
    make.make_ranking(first.slot, first.comparison, ranks=backwards, revises=1)
    gone = make.make_ranking(make.make_chat(name="bob", text="Taken back?"))
    rankings.withdraw_ranking(slot=gone.slot, comparison=gone.comparison)
    snapshot = written()
    (line,) = lines(snapshot, "rankings/train.jsonl")
    assert [answer["ranks"] for answer in line["rankings"]] == [[4, 3, 2, 1]]
    assert snapshot.excluded == {
        "corrected or taken back later by the same annotator": 2,
        "taken back by its annotator": 1,
    }


def test_a_late_answer_whose_slot_was_taken_is_left_out():
    comparison = make.make_comparison()
    slow = make.make_rank_slot(comparison, name="alice", wanted=1)
    make.lapse(slow)
    make.make_rank_slot(comparison, name="bob", wanted=1)
    make.make_ranking(slow, comparison)
    make.make_ranking(comparison=make.make_comparison(text="In time"))
    snapshot = frozen()
    assert len(snapshot.ranking_ids) == 1
    assert snapshot.excluded == {"sent too late, after somebody else had taken the slot": 1}


def test_a_pair_without_a_shared_opening_is_left_out():
    import_files([OURS / "hh_rlhf.jsonl"], file_format="hh-rlhf", slug="pairs")
    snapshot = written(Project.objects.get(slug="pairs"))
    assert snapshot.excluded == {"its replies share no opening": 1}
    assert snapshot.counts["total"]["comparisons"] == 12
    assert snapshot.counts["total"]["pairs"] == 11  # 12 comparisons of two, one of them a tie


def test_another_projects_answers_are_not_in_it():
    rank_three()
    other = make.make_project("other")
    make.make_ranking(comparison=make.make_comparison(other, text="Elsewhere"))
    assert len(frozen().ranking_ids) == 1


def test_filters_choose_by_origin_and_split():
    project = make.make_project("pairs")
    import_files([OURS / "hh_rlhf.jsonl"], file_format="hh-rlhf", slug="pairs")
    make.make_ranking(comparison=make.make_comparison(project, text="Ours", split="test"))
    assert len(frozen(project, filters={"origin": "people"}).ranking_ids) == 1
    imports = frozen(project, filters={"origin": "imports"})
    assert len(imports.ranking_ids) == 12
    assert imports.excluded["its origin was filtered out"] == 1
    assert len(frozen(project, filters={"splits": ["test"], "origin": "people"}).ranking_ids) == 1


@pytest.mark.parametrize("filters", [{"orign": "people"}, {"origin": "robots"}, {"splits": ["tset"]}])
def test_a_misspelt_filter_is_refused(filters):
    rank_three()
    with pytest.raises(ValueError, match="not"):
        frozen(filters=filters)


def test_nothing_to_export_is_refused():
    with pytest.raises(SnapshotEmpty, match="nothing to export"):
        frozen()


def test_what_comes_after_freezing_is_not_in_it():
    rank_three()
    snapshot = frozen()
    make.make_ranking(comparison=make.make_comparison(text="Later"))
    assert snapshots.write_now(snapshot).counts["total"]["comparisons"] == 1


def test_freezing_is_in_the_audit_trail_and_rings_a_worker(django_capture_on_commit_callbacks, monkeypatch):
    sent = []
    monkeypatch.setattr(queue, "_send", lambda name, pk: sent.append((name, pk)))
    rank_three()
    with django_capture_on_commit_callbacks(execute=True):
        snapshot = snapshots.freeze(project=make.make_project())
    assert ("feedback.write_snapshot", snapshot.pk) in sent
    assert AuditEntry.objects.get(action="snapshot.frozen").details == {"rankings": 1}


# The same bytes


def test_freezing_again_gives_the_same_bytes():
    rank_three(strength=2)
    assert all_bytes(written()) == all_bytes(written())


def test_the_bytes_do_not_depend_on_database_ids():
    key = "ab" * 32
    for slug in ("first", "second"):
        import_files([OURS / "hh_rlhf.jsonl"], file_format="hh-rlhf", slug=slug)
        Project.objects.filter(slug=slug).update(export_key=key, name="The same")
    one, other = (written(Project.objects.get(slug=slug)) for slug in ("first", "second"))
    assert one.sha256 == other.sha256
    rows = {name: content for name, content in all_bytes(one).items() if name.startswith(("data", "rankings"))}
    assert rows.items() <= all_bytes(other).items()


def test_the_identity_is_the_same_on_every_database_and_machine():
    """The fixture file's identity, written down: SQLite and PostgreSQL, today and later, must agree on it."""
    import_files([OURS / "hh_rlhf.jsonl"], file_format="hh-rlhf", slug="pairs")
    import_files([OURS / "open_assistant_trees.jsonl"], file_format="open-assistant", slug="pairs")
    assert written(Project.objects.get(slug="pairs")).sha256 == IDENTITY


def test_rows_are_ordered_by_the_comparisons_name():
    import_files([OURS / "hh_rlhf.jsonl"], file_format="hh-rlhf", slug="pairs")
    snapshot = written(Project.objects.get(slug="pairs"))
    names = [row["comparison_id"] for row in lines(snapshot, "rankings/train.jsonl")]
    assert names == sorted(names)
    assert len(names) > 3


def test_reading_in_small_pieces_gives_the_same_bytes(monkeypatch):
    slot = make.make_chat()
    make.make_ranking(slot)
    request = dialogues.send_message(slot=slot, text="And then?", after_position=0)
    make.answer_request(request)
    make.make_ranking(slot, slot.work_item.dialogue.comparisons.get(after_position=2))
    import_files([OURS / "hh_rlhf.jsonl"], file_format="hh-rlhf", slug="plant-desk")
    whole = written()
    monkeypatch.setattr(comparisons, "CHUNK", 1)
    monkeypatch.setattr(files, "ROW_GROUP", 2)
    pieces = written()
    assert pieces.sha256 == whole.sha256
    assert pieces.counts == whole.counts


def test_comparisons_of_the_same_content_are_told_apart():
    import_files([OURS / "hh_rlhf.jsonl"], file_format="hh-rlhf", slug="pairs")  # lines 1 and 12 are equal
    snapshot = written(Project.objects.get(slug="pairs"))
    rows = [row for split in files.SPLITS for row in lines(snapshot, f"rankings/{split}.jsonl")]
    names = [row["comparison_id"] for row in rows]
    assert len(set(names)) == len(names) == 12
    (twin,) = [row for row in rows if row["comparison_id"].endswith("-2")]
    assert [one["candidate_id"] for one in twin["candidates"]] == [f"{twin['comparison_id']}.{n}" for n in (0, 1)]


@pytest.mark.django_db(transaction=True)
def test_other_processes_locales_and_time_zones_write_the_same_bytes(process_environment, tmp_path):
    rank_three(strength=3, seconds=1.25)
    import_files([OURS / "open_assistant_trees.jsonl"], file_format="open-assistant", slug="plant-desk")
    wrote = []
    for number, local in enumerate(({"LC_ALL": "C", "TZ": "Asia/Kolkata"}, {"LC_ALL": "C.UTF-8", "TZ": "UTC"})):
        out = tmp_path / f"out{number}"
        command = [sys.executable, "manage.py", "export", "--project=plant-desk", "--kind=preference", f"--out={out}"]
        environment = process_environment | local | {"PYTHONHASHSEED": str(number + 1)}
        subprocess.run(command, env=environment, cwd=django_settings.BASE_DIR, check=True, capture_output=True)
        wrote.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert wrote[0] == wrote[1]
    assert len(wrote[0]) == 11


# Whole or damaged


def test_the_manifest_names_every_file_with_its_hash():
    rank_three()
    snapshot = written()
    names = set(all_bytes(snapshot))
    assert names == {
        *(f"data/{split}-00000-of-00001.{kind}" for split in files.SPLITS for kind in ("jsonl", "parquet")),
        *(f"rankings/{split}.jsonl" for split in files.SPLITS),
        "README.md",
        "manifest.json",
    }
    assert set(snapshot.manifest["files"]) == names - {"manifest.json"}
    assert json.loads(all_bytes(snapshot)["manifest.json"]) == snapshot.manifest
    assert snapshots.damaged_files(snapshot) == []
    assert not [found for found in violations() if "snapshot" in found.check]


@pytest.mark.parametrize("name", ["data/train-00000-of-00001.parquet", "rankings/test.jsonl", "manifest.json"])
def test_a_changed_or_missing_file_is_found(name):
    rank_three()
    snapshot = written()
    path = snapshots.folder_of(snapshot) / name
    path.write_bytes(path.read_bytes() + b" ")
    assert snapshots.damaged_files(snapshot) == [name]
    path.unlink()
    assert snapshots.damaged_files(snapshot) == [name]
    assert [found.target for found in violations()] == [f"snapshot {snapshot.pk}"]
    with pytest.raises(SnapshotUnusable, match="missing or changed"):
        list(snapshots.snapshot_rows(snapshot))


def test_a_withdrawn_snapshot_is_kept_and_no_longer_given_out():
    rank_three()
    snapshot = written()
    before = all_bytes(snapshot)
    snapshots.withdraw(snapshot, because="Somebody asked to be forgotten.")
    assert all_bytes(snapshot) == before
    assert not snapshots.usable_snapshots(make.make_project()).exists()
    with pytest.raises(SnapshotUnusable, match="Somebody asked to be forgotten"):
        snapshots.require_usable(snapshot)
    snapshots.withdraw(snapshot, because="Twice")
    assert snapshot.withdrawn_because == "Somebody asked to be forgotten."
    assert AuditEntry.objects.filter(action="snapshot.withdrawn").count() == 1


def test_a_snapshot_not_written_yet_is_not_given_out():
    rank_three()
    with pytest.raises(SnapshotUnusable, match="not written"):
        list(snapshots.snapshot_rows(frozen()))


# Written by whoever holds the lease


def test_a_worker_writes_what_it_is_rung_for_once():
    rank_three()
    snapshot = frozen()
    tasks.write_snapshot(snapshot.pk)
    snapshot.refresh_from_db()
    before = (snapshot.state, snapshot.attempts, snapshot.progress)
    tasks.write_snapshot(snapshot.pk)
    snapshot.refresh_from_db()
    assert before == (snapshot.state, snapshot.attempts, snapshot.progress) == ("done", 1, 1.0)


def test_a_failure_is_kept_on_the_row_and_leaves_no_files(monkeypatch, own_data_folder):
    def break_down(*args):
        raise OSError("No space left on device")

    rank_three()
    snapshot = frozen()
    monkeypatch.setattr(files, "write_whole", break_down)
    tasks.write_snapshot(snapshot.pk)
    snapshot.refresh_from_db()
    assert (snapshot.state, snapshot.error) == ("queued", "OSError: No space left on device")
    assert list((own_data_folder / "snapshots").iterdir()) == []
    monkeypatch.undo()


def test_a_worker_that_lost_its_lease_stops_and_leaves_no_files(monkeypatch, own_data_folder):
    rank_three()
    snapshot = frozen()
    monkeypatch.setattr(snapshots, "REPORT_EVERY", -1)
    monkeypatch.setattr(queue, "write", lambda row, **changes: False)
    tasks.write_snapshot(snapshot.pk)
    snapshot.refresh_from_db()
    assert (snapshot.state, snapshot.error, snapshot.sha256) == ("running", "", "")
    assert list((own_data_folder / "snapshots").iterdir()) == []


def test_what_a_killed_worker_left_is_cleared_away_and_its_folder_taken_over(own_data_folder):
    rank_three()
    done = written()
    Snapshot.objects.filter(pk=done.pk).update(
        state="queued", sha256="", folder="", manifest={}
    )  # died before its word
    left = own_data_folder / "snapshots" / f".draft-{done.pk}-dead"
    left.mkdir()
    again = snapshots.write_now(done)
    assert again.state == "done"
    assert [path.name for path in (own_data_folder / "snapshots").iterdir()] == [again.folder]
    assert snapshots.damaged_files(again) == []


def test_a_half_written_folder_in_its_place_is_replaced(own_data_folder):
    rank_three()
    done = written()
    (snapshots.folder_of(done) / "README.md").unlink()
    Snapshot.objects.filter(pk=done.pk).update(state="queued", sha256="")
    assert snapshots.damaged_files(snapshots.write_now(done)) == []


def test_writing_tells_how_far_it_is():
    rank_three()
    shares: list[float] = []
    snapshots.write_now(frozen(), progress=shares.append)
    assert shares
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1


def test_an_interrupted_command_gives_the_row_back():
    def interrupt(share: float) -> None:
        raise KeyboardInterrupt

    rank_three()
    snapshot = frozen()
    with pytest.raises(KeyboardInterrupt):
        snapshots.write_now(snapshot, progress=interrupt)
    snapshot.refresh_from_db()
    assert snapshot.state == "queued"


def test_waiting_for_a_worker_ends_with_its_result(monkeypatch):
    rank_three()
    snapshot = frozen()
    holder = queue.claim(Snapshot, snapshot.pk)
    assert holder is not None
    monkeypatch.setattr(snapshots.time, "sleep", lambda seconds: snapshots._write(holder))
    assert snapshots.write_now(snapshot).state == "done"


def test_waiting_has_an_end_and_a_failed_snapshot_says_why(monkeypatch):
    rank_three()
    snapshot = frozen()
    holder = queue.claim(Snapshot, snapshot.pk)
    assert holder is not None
    with pytest.raises(SnapshotUnusable, match="not written within 0 seconds"):
        snapshots.write_now(snapshot, timeout=0.01)
    queue.fail(holder, "the disk is full", permanent=True)
    with pytest.raises(SnapshotUnusable, match="the disk is full"):
        snapshots.write_now(snapshot)


# Read for training


def test_rows_for_training_hold_what_was_answered():
    make.make_member(make.make_project(), "bob")
    comparison = make.make_comparison(candidates=3)
    for name, places in (("alice", [1, 2, 2]), ("bob", [3, 1, 2])):
        slot = make.make_rank_slot(comparison, name=name)
        make.make_ranking(slot, comparison, ranks=make.ranks_by_index(comparison, places), seconds=4.0)
    snapshot = written()
    rows = list(snapshots.snapshot_rows(snapshot))
    assert sorted([row.ranks for row in rows]) == [[1, 2, 2], [3, 1, 2]]
    assert len({row.comparison_key for row in rows}) == 1
    assert len({row.annotator for row in rows}) == 2
    first = rows[0].candidates[0]
    assert first["turns"] == [{"role": "assistant", "content": "Reply 0 to this."}]
    assert (first["model"], first["mean_logprob"], first["is_empty"]) == ("policy-1", -1.0, False)
    assert list(snapshots.snapshot_rows(snapshot, splits=("test",))) == []


def test_the_kept_files_are_their_owners_alone(own_data_folder):
    rank_three()
    written()
    assert os.stat(own_data_folder / "snapshots").st_mode & 0o777 == 0o700
