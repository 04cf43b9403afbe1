"""Snapshots of ratings: a row for each, replies with the very words that were answered, what is left out and why."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from feedback import ratings, scale_sets, snapshots
from feedback.errors import SnapshotEmpty
from feedback.exports import comparisons, files
from feedback.exports.pseudonyms import pseudonym
from feedback.models import Project, Rating, Scale, Snapshot
from feedback.program_ratings import record_program_ratings
from feedback.scale_texts import FIELDS
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.services]


@pytest.fixture(autouse=True)
def own_data_folder(settings, tmp_path) -> Path:
    settings.DATA_DIR = tmp_path / "kept"
    settings.DATA_DIR.mkdir()
    return settings.DATA_DIR


@pytest.fixture
def project() -> Project:
    return make.make_project()


def written(project: Project, **choices) -> Snapshot:
    return snapshots.write_now(snapshots.freeze(project=project, kind="ratings", ring=False, **choices))


def lines(snapshot: Snapshot, folder: str) -> list[dict]:
    found = []
    for split in files.SPLITS:
        name = f"data/{split}-00000-of-00001.jsonl" if folder == "data" else f"{folder}/{split}.jsonl"
        text = (snapshots.folder_of(snapshot) / name).read_text(encoding="utf-8")
        found += [json.loads(line) for line in text.split("\n") if line]
    return found


def test_every_rating_is_a_row_with_the_dialogue_the_reply_and_the_question(project: Project) -> None:
    slot = make.make_rate_slot(make.make_scale_set(project))
    stored = make.rate(slot, sensible="no", seconds=9.5)
    rows = lines(written(project), "data")
    assert [(row["scale"], row["value"], row["implied"]) for row in rows] == [
        (rating.scale.key, rating.value, rating.implied) for rating in stored
    ]
    row, candidate = rows[0], slot.work_item.candidate
    assert candidate is not None
    assert row["prompt"] == [{"role": "user", "content": "Why are my basil leaves yellow?"}]
    assert row["completion"] == [{"role": "assistant", "content": candidate.text}]
    assert (row["scale_set"], row["scale_version"], row["question"]) == ("lamda", 1, stored[0].scale.question)
    assert row["annotator_id"] == pseudonym(project, stored[0]) and "alice" not in json.dumps(rows)
    assert (row["seconds"], row["late"], row["number"], row["program"]) == (9.5, False, None, "")
    assert row["model"] == "policy-1" and row["split"] == "train"


def test_a_reply_stands_once_with_all_that_was_said_and_in_which_words(project: Project) -> None:
    scale_set = make.make_scale_set(project, "instructgpt")
    first = make.make_rate_slot(scale_set)
    make.rate(first, overall="6")
    old = scale_set.scales.get(key="overall")
    new = scale_sets.change_words(scale=old, words={"question": "How good?"}, options={}, by=None)
    make.rate(make.make_rate_slot(scale_set, first.work_item.candidate, name="bob"), overall="3")
    snapshot = written(project)
    (reply,) = lines(snapshot, "ratings")
    asked = [(one["scale"], one["version"], [said["value"] for said in one["ratings"]]) for one in reply["scales"]]
    assert asked == [
        ("overall", 1, ["6"]), ("overall", 2, ["3"]), ("work", 1, ["fails_task,makes_things_up"] * 2),
        ("content", 1, ["none"] * 2),
    ]  # fmt: skip
    for one, scale in zip(reply["scales"], (old, new), strict=False):
        assert one["words"] == {name: getattr(scale, name) for name in FIELDS}  # lossless
    assert {row["number"] for row in lines(snapshot, "data") if row["scale"] == "overall"} == {3, 6}
    assert snapshot.counts["total"] == {
        "replies": 1, "ratings": 6, "implied": 0, "by_programs": 0, "several_raters": 1,
    }  # fmt: skip


def test_what_is_left_out_is_counted_by_reason(project: Project) -> None:
    scale_set = make.make_scale_set(project, "sparrow")
    with pytest.raises(SnapshotEmpty, match="no rating in force"):
        written(project)
    corrected = make.make_rate_slot(scale_set)
    make.rate(corrected)
    make.rate(corrected, plausible="no", revises=1)
    texts = iter(("Two?", "Three?", "Four?"))

    def another(**more):
        comparison = make.make_comparison(project, candidates=2, text=next(texts))
        return make.make_rate_slot(scale_set, comparison.candidates.all()[0], **more)

    taken_back = another()
    make.rate(taken_back)
    ratings.withdraw_ratings(slot=taken_back)
    late = another(wanted=1)
    make.lapse(late)
    make.rate(make.make_rate_slot(scale_set, late.work_item.candidate, name="bob", wanted=1))
    make.rate(late)
    snapshot = written(project)
    assert snapshot.excluded == {
        "corrected or taken back later by the same annotator": 4,
        "sent too late, after somebody else had taken the slot": 2,
        "taken back by its annotator": 2,
    }
    assert snapshot.counts["total"]["ratings"] == 4


def test_programs_are_named_and_neither_peoples_nor_imported(project: Project) -> None:
    make.make_scale_set(project, "unit-tests")
    slot = make.make_rate_slot(make.make_scale_set(project, "sparrow"))
    make.rate(slot)
    verdict = {"candidate": slot.work_item.candidate_id, "scale": "passes", "value": "fails", "program": "pytest",
               "version": "8.3", "details": {"failed": 2}}  # fmt: skip
    record_program_ratings(project=project, lines=[json.dumps(verdict)])
    snapshot = written(project)
    (row,) = [row for row in lines(snapshot, "data") if row["program"]]
    assert (row["annotator_id"], row["program"], row["program_version"]) == ("pytest/8.3", "pytest", "8.3")
    (reply,) = lines(snapshot, "ratings")
    assert json.loads(reply["scales"][-1]["ratings"][0]["meta"]) == {"failed": 2}
    assert written(project, filters={"origin": "people"}).counts["total"]["by_programs"] == 0
    with pytest.raises(SnapshotEmpty):
        written(project, filters={"origin": "imports"})


def test_the_same_content_is_the_same_bytes_in_pieces_of_any_size(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale_set = make.make_scale_set(project, "sparrow")
    for number in range(5):
        comparison = make.make_comparison(project, candidates=2, text=f"Opening {number % 4}?", texts=["One.", "Two."])
        for candidate in comparison.candidates.all():
            make.rate(make.make_rate_slot(scale_set, candidate))
    first = written(project)
    monkeypatch.setattr(comparisons, "CHUNK", 2)
    assert written(project).sha256 == first.sha256
    names = [reply["reply_id"] for reply in lines(first, "ratings")]
    assert len(set(names)) == 10 and sum(name.endswith("-2") for name in names) == 2


def test_the_command_writes_a_folder_that_datasets_loads(project: Project, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    make.rate(make.make_rate_slot(make.make_scale_set(project, "instructgpt")))
    said = StringIO()
    call_command("export", project=project.slug, kind="ratings", out=tmp_path / "out", stdout=said)
    assert "1 replies, 3 ratings" in said.getvalue()
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded["scale"][:] == ["overall", "work", "content"] and loaded["number"][:] == [5, None, None]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "ratings" in card and "Nothing was left out." in card
    assert Rating.objects.count() == Scale.objects.count() == 3
