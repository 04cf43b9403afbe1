"""Exports: pairs and margins, pseudonyms, the card, and folders that are not overwritten."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from feedback.exports import card
from feedback.exports.comparisons import ExportedCandidate, ExportedComparison, ExportedRanking
from feedback.exports.delivery import FolderNotOurs, deliver, refuse_foreign
from feedback.exports.preferences import agreement, margin, preference_rows, tied_pairs
from feedback.exports.pseudonyms import pseudonym
from feedback.imports.taking_in import import_files
from feedback.models import Project, Ranking, Snapshot
from tests import make
from tests.feedback.sources import OURS

pytestmark = [pytest.mark.django_db, pytest.mark.services, pytest.mark.usefixtures("own_data_folder")]


def answer(ranks: list[int | None], **fields: Any) -> ExportedRanking:
    given = {
        "annotator_id": "annotator-1", "all_bad": False, "strength": None, "flags": [[] for _ in ranks],
        "shown_order": [], "seconds": None, "late": False, "revision": 1, "created_at": None,
    }  # fmt: skip
    return ExportedRanking(ranks=ranks, **{**given, **fields})


def candidate(index: int) -> ExportedCandidate:
    return ExportedCandidate(
        candidate_id=f"c.{index}", turns=[{"role": "assistant", "content": f"Reply {index}"}], is_empty=False,
        model=f"policy-{index}", model_hash="", mean_logprob=None, token_count=None, finish_reason="", seed=None,
        draw=0, meta="{}",
    )  # fmt: skip


def comparison(*answers: ExportedRanking) -> ExportedComparison:
    return ExportedComparison(
        comparison_id="c", dialogue_id="d", turn=1, split="train", prompt=[{"role": "user", "content": "Hi"}],
        candidates=[candidate(index) for index in range(len(answers[0].ranks))], rankings=list(answers), source="",
        source_key="",
    )  # fmt: skip


# Pairs


def test_margins_are_llama_2s_for_pairs_with_the_best_in_them():
    assert [margin(strength, rank_chosen=1) for strength in (1, 2, 3, 4)] == [0, 1 / 3, 2 / 3, 1]


def test_pairs_without_the_best_and_answers_without_a_strength_have_no_margin():
    assert margin(4, rank_chosen=2) == 0
    assert margin(None, rank_chosen=1) == 0


def test_ties_and_unranked_replies_make_no_pair():
    rows = list(preference_rows(comparison(answer([1, 1, 2, None]))))
    assert [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows] == [
        ("Reply 0", "Reply 2"),
        ("Reply 1", "Reply 2"),
    ]
    assert tied_pairs(answer([1, 1, 2, None])) == 1
    assert tied_pairs(answer([1, 1, 1])) == 3


def test_a_pair_names_its_models_places_and_strength():
    (row,) = preference_rows(comparison(answer([2, 1], strength=3)))
    assert (row["model_chosen"], row["model_rejected"]) == ("policy-1", "policy-0")
    assert (row["rank_chosen"], row["rank_rejected"], row["candidates"], row["strength"]) == (1, 2, 2, 3)


def test_meta_tells_flags_in_the_order_of_the_pair():
    (row,) = preference_rows(comparison(answer([2, 1], flags=[["rude"], []])))
    assert json.loads(row["meta"]) == {"flags_rejected": ["rude"]}


def test_agreement_is_the_share_of_annotators_who_saw_a_pair_this_way():
    three = comparison(answer([1, 2, 3]), answer([1, 2, 2]), answer([2, 1, 3]))
    assert agreement(three, 0, 1) == pytest.approx(2 / 3)
    assert agreement(three, 1, 0) == pytest.approx(1 / 3)
    assert agreement(three, 0, 2) == 1
    assert agreement(three, 1, 2) == 1  # the one who tied them is not asked


def test_one_annotator_alone_agrees_with_nobody():
    assert agreement(comparison(answer([1, 2])), 0, 1) is None


# Pseudonyms


def test_a_pseudonym_is_stable_and_tells_nothing_without_the_key():
    ranking = make.make_ranking()
    project = ranking.comparison.dialogue.project
    name = pseudonym(project, ranking)
    assert name == pseudonym(Project.objects.get(), Ranking.objects.get())
    assert name.startswith("annotator-")
    assert "alice" not in name
    project.export_key = "00" * 32
    assert pseudonym(project, ranking) != name


def test_two_projects_name_the_same_person_differently():
    first = make.make_ranking()
    second = make.make_ranking(comparison=make.make_comparison(make.make_project("other"), text="Other"))
    assert first.annotator == second.annotator
    names = {pseudonym(one.comparison.dialogue.project, one) for one in (first, second)}
    assert len(names) == 2


def test_no_name_or_key_of_a_person_is_in_any_file(tmp_path):
    make.make_ranking()
    out = export(tmp_path)
    project = Project.objects.get()
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"annotator-" in everything
    for secret in ("alice", "Alice", project.export_key):
        assert secret.encode() not in everything


def test_a_format_that_names_nobody_has_its_own_name():
    import_files([OURS / "hh_rlhf.jsonl"], file_format="hh-rlhf", slug="pairs")
    ranking = Ranking.objects.select_related("source_import").first()
    assert ranking is not None
    assert pseudonym(Project.objects.get(slug="pairs"), ranking) == "hh-rlhf"


# The card


def manifest(name: str = "Plant desk", **about: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("comparisons", "rankings", "pairs", "tied_pairs", "all_bad"), 0)
    full = counts | {"comparisons": 1, "rankings": 1, "pairs": 3}
    return {
        "kind": "preference",
        "project": {"slug": "plant-desk", "name": name, "is_rehearsal": False},
        "counts": {"total": full, "splits": {"train": full, "validation": counts, "test": counts}},
        "excluded": {},
        "identity": "ab" * 32,
    } | about


def front_matter(text: str) -> dict[str, Any]:
    lines = text.split("---\n")[1].splitlines()
    return {line.split(": ", 1)[0]: json.loads(line.split(": ", 1)[1]) for line in lines}


def test_the_card_names_the_splits_that_have_rows():
    (config,) = front_matter(card.render(manifest()))["configs"]
    assert config["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]


def test_a_projects_name_cannot_break_out_of_its_place():
    text = card.render(manifest(name='x"\n---\nconfigs: []\n<script>|'))
    assert front_matter(text)["pretty_name"] == 'x"\n---\nconfigs: []\n<script>|: ranked preferences'
    assert '# x" --- configs: \\[\\] \\<script\\>\\|: ranked preferences' in text


def test_the_card_tells_what_was_left_out_and_why():
    assert "- 3: sent too late" in card.render(manifest(excluded={"sent too late": 3}))
    assert card.EXCLUDED_NOTHING in card.render(manifest())


def test_a_rehearsals_card_says_so():
    project = {"slug": "r", "name": "R", "is_rehearsal": True}
    assert "every judgement in here is a simulated annotator's" in card.render(manifest(project=project))


# The command


def export(tmp_path: Path, slug: str = "plant-desk", folder: str = "out", **options: Any) -> Path:
    out = tmp_path / folder
    call_command("export", f"--project={slug}", "--kind=preference", f"--out={out}", stdout=StringIO(), **options)
    return out


def test_the_command_writes_a_snapshot_and_says_what_is_next(tmp_path):
    make.make_ranking()
    told = StringIO()
    out = tmp_path / "deep" / "out"
    call_command("export", "--project=plant-desk", "--kind=preference", f"--out={out}", stdout=told)
    assert "1 comparisons, 1 rankings, 6 pairs, 0 tied pairs" in told.getvalue()
    assert Snapshot.objects.get().sha256 in told.getvalue()
    assert f"load_dataset('{out}')" in told.getvalue()
    assert json.loads((out / "manifest.json").read_text())["identity"] == Snapshot.objects.get().sha256


def test_exporting_again_replaces_the_earlier_export(tmp_path):
    make.make_ranking()
    first = export(tmp_path)
    before = (first / "manifest.json").read_bytes()
    make.make_ranking(comparison=make.make_comparison(text="Another one"))
    second = export(tmp_path)
    assert first == second
    assert (second / "manifest.json").read_bytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "out"]


def test_filters_of_the_command(tmp_path):
    make.make_ranking(comparison=make.make_comparison(text="In test", split="test"))
    make.make_ranking(comparison=make.make_comparison(text="In train", split="train"))
    out = export(tmp_path, split=["test"], origin="people")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["filters"] == {"origin": "people", "splits": ["test"]}
    assert manifest["counts"]["total"]["comparisons"] == 1


@pytest.mark.parametrize("content", ["notes.txt", "manifest.json", "data/train.jsonl"])
def test_a_folder_with_anything_else_is_not_touched(tmp_path, content):
    make.make_ranking()
    foreign = tmp_path / "out" / content
    foreign.parent.mkdir(parents=True)
    foreign.write_text("{}")
    with pytest.raises(CommandError, match="what no export wrote"):
        export(tmp_path)
    assert foreign.read_text() == "{}"
    assert not Snapshot.objects.exists()


def test_an_export_with_something_added_is_not_touched(tmp_path):
    make.make_ranking()
    out = export(tmp_path)
    (out / "mine.txt").write_text("notes")
    with pytest.raises(CommandError, match=r"what no export wrote \(mine.txt\)"):
        export(tmp_path)


def test_an_empty_folder_is_used_and_a_file_is_not(tmp_path):
    make.make_ranking()
    (tmp_path / "out").mkdir()
    assert (export(tmp_path) / "README.md").is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="is a file"):
        export(tmp_path, folder="file")


def test_a_delivery_that_fails_leaves_the_earlier_one(tmp_path, monkeypatch):
    make.make_ranking()
    out = export(tmp_path)
    before = (out / "manifest.json").read_bytes()

    def fail(*args: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("shutil.copyfile", fail)
    with pytest.raises(CommandError, match="disk full"):
        export(tmp_path)
    assert (out / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "out"]


def test_a_link_into_a_foreign_folder_is_no_export(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    with pytest.raises(FolderNotOurs):
        refuse_foreign(tmp_path / "out")


def test_delivered_files_have_the_usual_rights(tmp_path):
    make.make_ranking()
    out = export(tmp_path)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert out.stat().st_mode == fresh.stat().st_mode
    with pytest.raises(FolderNotOurs):
        deliver(out, tmp_path)


def test_an_unknown_project_is_named_with_the_known_ones(tmp_path):
    make.make_project()
    with pytest.raises(CommandError, match="no project 'plants'. Projects: plant-desk"):
        export(tmp_path, slug="plants")


def test_an_empty_project_says_what_to_do(tmp_path):
    make.make_project()
    with pytest.raises(CommandError, match="Rank some first"):
        export(tmp_path)
    assert not (tmp_path / "out").exists()
