"""Snapshots of verdicts on rules: rows for trainers, every verdict kept, what is left out, and back in the same."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from feedback import judgements, rule_sets, snapshots
from feedback.errors import SnapshotEmpty, SnapshotUnusable
from feedback.exports import comparisons, files
from feedback.exports.judged import ExportedVerdict, reply_meant
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import Dialogue, Probe, Project, Rule, RuleJudgement, Snapshot, Turn
from tests import make
from tests.feedback.sources import ORIGINALS, OURS, needs_originals

KEY = "ab" * 32
# What the two fixture files come to, by that key: every database must agree on it.
IDENTITY = "885c5725353727915c8d8d9f346cec85e27f7de7750d7e855dfc1c7b942e238d"
pytestmark = [pytest.mark.django_db, pytest.mark.services, pytest.mark.usefixtures("own_data_folder")]


def written(slug: str = "plant-desk", **choices) -> Snapshot:
    project = Project.objects.get(slug=slug)
    return snapshots.write_now(snapshots.freeze(project=project, kind="rules", ring=False, **choices))


def lines(snapshot: Snapshot, folder: str) -> list[dict]:
    found = []
    for split in files.SPLITS:
        name = f"data/{split}-00000-of-00001.jsonl" if folder == "data" else f"{folder}/{split}.jsonl"
        text = (snapshots.folder_of(snapshot) / name).read_text(encoding="utf-8")
        found += [json.loads(line) for line in text.split("\n") if line]
    return found


def judged_probe(**fields) -> Probe:
    """A probe with an opening, as people's own have."""
    probe = make.make_probe(**fields)
    Dialogue.objects.filter(pk=probe.dialogue_id).update(
        prompt=make.make_prompt(probe.dialogue.project, "Do the thing.")
    )
    probe.dialogue.refresh_from_db()
    return probe


def taken_in(slug: str = "desk", key: str = KEY) -> Project:
    import_files([OURS / "probes.jsonl"], file_format="probes", slug=slug)
    import_files(
        [OURS / "xstest_v2_completions_fern.csv"], file_format="xstest", slug=slug,
        chosen={"safe": "kind", "unsafe": "no-medical-advice"},
    )  # fmt: skip
    Project.objects.filter(slug=slug).update(export_key=key)
    return Project.objects.get(slug=slug)


# Rows for trainers


def test_a_probe_that_broke_its_rule_is_an_unwanted_completion():
    probe = judged_probe()
    make.make_judgement(probe, name="bob", verdict=1, turn_position=1)
    make.make_judgement(probe, name="dora", verdict=2, turn_position=1)
    (row,) = lines(written(), "data")
    assert row["prompt"] == [{"role": "user", "content": "Do the thing."}]
    assert row["completion"] == [{"role": "assistant", "content": "I did the thing."}]
    assert (row["label"], row["p_broken"], row["verdicts"], row["agreement"]) == (False, 0.875, 2, 1.0)
    assert (row["rule_key"], row["rule_wording"]) == ("r1", probe.rule.wording)
    assert (row["probed"], row["model"], row["turn"], row["split"]) == (True, "policy-1", 1, "train")


def test_a_kept_rule_is_a_wanted_completion_and_an_undecided_one_none():
    probe = judged_probe()
    make.make_judgement(probe, verdict=5)
    undecided = judged_probe(rule=probe.rule, name="eve")
    make.make_judgement(undecided, name="bob", verdict=1)
    make.make_judgement(undecided, name="dora", verdict=5)
    snapshot = written()
    assert [(row["label"], row["agreement"]) for row in lines(snapshot, "data")] == [(True, None)]
    assert snapshot.counts["total"] == {
        "dialogues": 2, "verdicts": 3, "probes": 2, "differing": 1, "broken": 0, "kept": 1, "undecided": 1,
    }  # fmt: skip


def verdict(step: int, turn: int | None) -> ExportedVerdict:
    return ExportedVerdict("a", False, step, turn, "", [], None, False, 1, None, None, "{}")


def test_the_reply_meant_is_the_one_most_mark_the_earliest_of_several():
    messages = [{"role": role, "content": ""} for role in ("user", "assistant") * 3]
    assert reply_meant(messages, [verdict(1, 3), verdict(2, 3), verdict(1, 1), verdict(5, 5), verdict(4, 5)]) == 3
    assert reply_meant(messages, [verdict(1, 3), verdict(1, 1)]) == 1
    assert reply_meant(messages, [verdict(1, None)]) == 5
    assert reply_meant([*messages, messages[0]], []) == 5


def test_a_verdict_on_earlier_words_counts_for_those_that_continue_them_and_says_which():
    probe = judged_probe(rule=make.make_rule_set(rules=1).rules.get())
    make.make_judgement(probe, verdict=1)
    draft = rule_sets.open_draft(project=probe.dialogue.project, by=None)
    rule_sets.edit_rule(rule=draft.rules.get(), by=None, wording="Never do the thing.")
    frozen = snapshots.freeze(project=draft.project, kind="rules", ring=False)
    rule_sets.publish(draft=draft, by=None, decisions={"r1": "wording"})
    (before,), (after,) = lines(snapshots.write_now(frozen), "judgements"), lines(written(), "judgements")
    assert (before["rules"][0]["rule"]["wording"], before["rules"][0]["judgements"][0]["wording"]) == (
        "Do not do the thing number 1.", None,
    )  # fmt: skip
    assert (after["rules"][0]["rule"]["wording"], after["rules"][0]["judgements"][0]["wording"]) == (
        "Never do the thing.", "Do not do the thing number 1.",
    )  # fmt: skip
    assert after["probed"] == after["rules"][0]["rule"]


# What is in it, and what is left out


def test_every_verdict_is_told_with_a_pseudonym_and_nobody_by_name():
    probe = judged_probe()
    make.make_judgement(probe, name="bob", verdict=1, turn_position=1, reason="It did it.", seconds=2.5)
    make.make_judgement(probe, name="dora", verdict=5)
    snapshot = written()
    (dialogue,) = lines(snapshot, "judgements")
    (rule,) = dialogue["rules"]
    assert (rule["p_broken"], {one["verdict"] for one in rule["judgements"]}) == (0.5, {1, 5})
    (bobs,) = [one for one in rule["judgements"] if one["verdict"] == 1]
    assert (bobs["reason"], bobs["seconds"], bobs["turn"], bobs["by_prober"]) == ("It did it.", 2.5, 1, False)
    assert bobs["annotator_id"].startswith("annotator-")
    everything = b"".join(path.read_bytes() for path in snapshots.folder_of(snapshot).rglob("*") if path.is_file())
    assert not any(secret in everything for secret in (b"bob", b"Dora", probe.dialogue.project.export_key.encode()))


def test_what_is_left_out_is_counted_by_reason():
    slot = make.make_judge_slot()
    make.make_verdict(slot, verdict=2)
    judgements.withdraw_judgement(slot=slot)
    silent = judged_probe(rule=Rule.objects.get(key="r2"), name="eve")
    make.make_judgement(silent, name="dora")
    kept_apart = judged_probe(rule=Rule.objects.get(key="r2"), name="fay")
    make.make_judgement(kept_apart, name="dora")
    Dialogue.objects.filter(pk=kept_apart.dialogue_id).update(kind="evaluation")
    Turn.objects.filter(dialogue=silent.dialogue_id, role="assistant").update(role="user")
    late = judged_probe(rule=Rule.objects.get(key="r2"), name="gil")
    make.make_judgement(late, name="dora", late=True, counts=False)
    no_opening = make.make_probe(Rule.objects.get(key="r2"), name="hal")
    make.make_judgement(no_opening, name="dora")
    snapshot = written()
    assert snapshot.excluded == {
        "corrected or taken back later by the same annotator": 1,
        "its dialogue has no opening": 1,
        "its dialogue is kept for evaluation": 1,
        "sent too late, after somebody else had taken the slot": 1,
        "taken back by its annotator": 1,
        "the model says nothing in its dialogue": 1,
    }
    assert snapshot.counts["total"]["verdicts"] == 1  # the prober's own


def test_filters_tell_people_from_imports_and_split_from_split():
    project = taken_in()
    probe = judged_probe(rule=rule_sets.published_set(project).rules.first())
    make.make_judgement(probe, verdict=5)
    assert written("desk", filters={"origin": "people"}).counts["total"]["verdicts"] == 1
    assert written("desk", filters={"origin": "imports"}).counts["total"]["verdicts"] == 18
    assert written("desk", filters={"origin": "imports", "splits": ["test"]}).counts["total"]["dialogues"] >= 1


def test_nothing_judged_is_nothing_to_export():
    with pytest.raises(SnapshotEmpty, match="no verdict on a rule in force"):
        snapshots.freeze(project=make.make_project(), kind="rules", ring=False)


def test_training_on_preferences_refuses_a_snapshot_of_verdicts():
    taken_in()
    with pytest.raises(SnapshotUnusable, match="holds rules, not rankings"):
        next(snapshots.snapshot_rows(written("desk")))


# The same content is the same bytes


def test_the_identity_is_the_same_on_every_database_and_in_pieces_of_any_size(monkeypatch):
    taken_in()
    snapshot = written("desk")
    assert snapshot.sha256 == IDENTITY
    assert list(violations()) == []
    monkeypatch.setattr(comparisons, "CHUNK", 1)
    monkeypatch.setattr(files, "ROW_GROUP", 2)
    assert written("desk").sha256 == IDENTITY


def test_dialogues_of_the_same_messages_are_told_apart():
    make.make_judgement(judged_probe(), verdict=1)
    make.make_judgement(judged_probe(rule=Rule.objects.get(key="r1"), name="eve"), verdict=4)
    names = [row["dialogue_id"] for row in lines(written(), "judgements")]
    assert (len(names), names[1]) == (2, f"{names[0]}-2")


# There and back


def again(snapshot: Snapshot, tmp_path: Path) -> Snapshot:
    """A snapshot of what an import of a snapshot's verdicts makes of them, in a project that had nothing."""
    path = tmp_path / "all.jsonl"
    folder = snapshots.folder_of(snapshot) / "judgements"
    path.write_bytes(b"".join((folder / f"{split}.jsonl").read_bytes() for split in files.SPLITS))
    import_files([path], file_format="probes", slug="again")
    return written("again")


def test_what_was_exported_comes_in_and_goes_out_the_same(tmp_path):
    project = taken_in()
    probe = judged_probe(rule=rule_sets.published_set(project).rules.first())
    make.make_judgement(probe, name="bob", verdict=1, turn_position=1, reason="It “did” it.", seconds=2.5)
    make.make_judgement(probe, name="dora", verdict=4)
    first = written("desk")
    second = again(first, tmp_path)
    assert lines(second, "judgements") == lines(first, "judgements")
    assert lines(second, "data") == lines(first, "data")
    assert second.sha256 == first.sha256
    assert RuleJudgement.objects.filter(dialogue__project__slug="again").count() == 20
    assert list(violations()) == []


@needs_originals
def test_the_original_labels_come_in_and_go_out_the_same(tmp_path):
    path = ORIGINALS / "xstest" / "xstest_v2_completions_mistralguard.dev.csv.gz"
    import_files([path], file_format="xstest", slug="desk")
    first = written("desk")
    assert first.counts["total"]["verdicts"] == 660
    assert first.counts["total"]["differing"] == 19
    assert again(first, tmp_path).sha256 == first.sha256


# As others read it


def test_datasets_loads_the_folder_and_trl_sees_prompt_completion_and_label(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="what learning needs is not installed")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    taken_in()
    out = tmp_path / "out"
    said = StringIO()
    call_command("export", "--project=desk", "--kind=rules", f"--out={out}", stdout=said)
    assert "all: 9 dialogues, 18 verdicts" in said.getvalue()
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    rows = [row for split in loaded.values() for row in split]
    told = json.loads((out / "manifest.json").read_text())["counts"]
    counts = told["total"]
    assert len(rows) == counts["broken"] + counts["kept"]
    assert loaded["train"].column_names[:3] == ["prompt", "completion", "label"]
    assert sorted(rows, key=str) == sorted(
        [json.loads(line) for path in sorted((out / "data").glob("*.jsonl")) for line in path.open()], key=str
    )
    judged = str(out / "judgements" / "train.jsonl")
    every = datasets.load_dataset("json", data_files=judged, cache_dir=str(tmp_path / "cache"))["train"]
    verdicts = sum(len(rule["judgements"]) for line in every for rule in line["rules"])
    assert verdicts == told["splits"]["train"]["verdicts"] > 0
    utils = pytest.importorskip("trl.data_utils")
    assert utils.is_conversational(rows[0])
    call_command("export", "--project=desk", "--kind=rules", f"--out={out}", stdout=StringIO())  # its own is replaced
