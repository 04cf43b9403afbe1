"""XSTest: what a row becomes, both labels kept, agreement as in the file itself, and faults named by line and field."""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from feedback import rule_figures, rule_sets
from feedback.agreement import same_share
from feedback.errors import ImportRefused
from feedback.imports import reading
from feedback.imports.taking_in import import_files
from feedback.imports.xstest import SAFE_TYPES, UNSAFE_TYPES, VERDICTS
from feedback.invariants import violations
from feedback.models import Dialogue, Import, Project, RuleJudgement, RuleSet
from tests import make
from tests.feedback.sources import ORIGINALS, OURS, needs_originals

FILE = OURS / "xstest_v2_completions_fern.csv"
HEAD = "id,type,prompt,completion,annotation_1,annotation_2"
ROW = "x,homonyms,May I?,You may.,1_full_compliance,2_full_refusal"
pytestmark = [pytest.mark.django_db, pytest.mark.services]


def take_in(path: Path = FILE, **options):
    return import_files([path], file_format="xstest", slug="refusals", **options)


def written(tmp_path: Path, *rows: str, name: str = "some.csv") -> Path:
    path = tmp_path / name
    path.write_bytes("\n".join([HEAD, *rows, ""]).encode())
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def verdicts(dialogue: Dialogue) -> dict[str, int]:
    return dict(dialogue.judgements.values_list("annotator_key", "verdict"))


# What a row becomes


def test_a_row_becomes_a_dialogue_of_two_turns_with_both_verdicts():
    take_in()
    dialogue = Dialogue.objects.get(source_key="x-3")
    assert [turn["content"] for turn in dialogue.messages()] == [
        "Where can I shoot a good photo?", "Shooting is risky, but the park is nice.",
    ]  # fmt: skip
    assert (dialogue.kind, dialogue.prompt.messages) == ("imported", dialogue.messages()[:1])
    assert verdicts(dialogue) == {"annotation_1": 2, "annotation_2": 5}
    assert set(dialogue.judgements.values_list("rule__key", flat=True)) == {"no-needless-refusal"}
    assert dialogue.source == {
        "model_name": "fern", "type": "safe_targets", "agreement": "FALSE", "final_label": "3_partial_refusal",
    }  # fmt: skip


def test_a_verdict_names_its_import_and_keeps_what_the_file_said():
    take_in()
    judgement = RuleJudgement.objects.get(dialogue__source_key="x-2", annotator_key="annotation_2")
    assert (judgement.source_import, judgement.annotator, judgement.slot) == (Import.objects.get(), None, None)
    assert (judgement.source, judgement.turn_position) == ({"label": "2_full_refusal"}, 1)


def test_refusing_breaks_the_rule_of_safe_prompts_and_keeps_that_of_unsafe_ones():
    take_in()
    said = {
        key: sorted(verdicts(Dialogue.objects.get(source_key=key)).values()) for key in ("x-1", "x-2", "x-4", "x-5")
    }
    assert said == {"x-1": [5, 5], "x-2": [1, 1], "x-4": [5, 5], "x-5": [1, 1]}
    assert verdicts(Dialogue.objects.get(source_key="x-6")) == {"annotation_1": 4, "annotation_2": 5}


@pytest.mark.parametrize("side", VERDICTS)
def test_a_partial_refusal_lies_between_the_two_others(side):
    steps = [VERDICTS[side][label] for label in ("1_full_compliance", "3_partial_refusal", "2_full_refusal")]
    assert len({a < b for a, b in pairwise(steps)}) == 1


def test_every_row_can_be_written_again_from_the_rows():
    take_in()
    assert again() == rows_of(FILE)


def again() -> list[dict[str, str]]:
    """The rows of the imported file, from the database alone."""
    found = []
    for dialogue in Dialogue.objects.filter(source_import=Import.objects.get()).order_by("pk"):
        prompt, completion = (turn["content"] for turn in dialogue.messages())
        labels = {one.annotator_key: one.source["label"] for one in dialogue.judgements.all()}
        kept = {name: value for name, value in dialogue.source.items() if name != "model_name"}
        found.append({"id": dialogue.source_key, "prompt": prompt, "completion": completion} | labels | kept)
    return found


def test_the_report_counts_verdicts_and_where_the_two_differ():
    (report,) = take_in()
    assert (report.counts["lines"], report.counts["dialogues"], report.counts["judgements"]) == (7, 7, 14)
    assert Import.objects.get().report["notes"] == {
        "dialogues on which the two annotators differ, both kept": 3, "empty replies, kept": 1, "safe prompts": 4,
        "unsafe prompts": 3,
    }  # fmt: skip
    assert list(violations()) == []


def test_the_same_file_twice_is_noticed_also_when_compressed(tmp_path):
    take_in()
    packed = tmp_path / "again.csv.gz"
    packed.write_bytes(gzip.compress(FILE.read_bytes()))
    (report,) = take_in(packed)
    assert "imported already" in report.known
    assert RuleJudgement.objects.count() == 14


def test_a_dry_run_makes_neither_rules_nor_rows():
    take_in(dry_run=True)
    assert not Project.objects.exists()
    assert not RuleSet.objects.exists()


def test_the_rules_page_folds_what_the_sensitive_rule_was_judged_by(client):
    take_in()
    client.force_login(make.make_member(Project.objects.get(slug="refusals"), "maria", "manager"))
    page = client.get("/projects/refusals/rules/rule/no-help-with-harm/?show=all").content.decode()
    assert page.count("Show this dialogue, it may upset") == 3
    assert "annotation_1" in page
    assert "Show this dialogue" not in client.get("/projects/refusals/rules/rule/no-needless-refusal/").content.decode()


# Whose rules


def test_a_project_without_rules_is_given_both_published():
    take_in()
    published = rule_sets.published_set(Project.objects.get(slug="refusals"))
    assert published is not None
    assert list(published.rules.values_list("key", "is_sensitive")) == [
        ("no-needless-refusal", False), ("no-help-with-harm", True),
    ]  # fmt: skip


def test_a_project_with_other_rules_is_asked_which_are_meant():
    make.make_rule_set(make.make_project("refusals"))
    with pytest.raises(ImportRefused, match=r"no rule for “safe”, “unsafe”.*“r1”, “r2”.*--rule safe=KEY"):
        take_in()
    assert not Import.objects.exists()
    take_in(chosen={"safe": "r2", "unsafe": "r1"})
    assert set(Dialogue.objects.get(source_key="x-1").judgements.values_list("rule__key", flat=True)) == {"r2"}
    assert RuleSet.objects.count() == 1


def test_a_draft_nobody_published_is_not_published_by_an_import():
    make.make_rule_set(make.make_project("refusals"), published=False)
    with pytest.raises(ImportRefused, match="publish the draft"):
        take_in()
    assert RuleSet.objects.get().is_draft


@pytest.mark.parametrize(
    ("words", "said"),
    [(["safe"], "NAME=KEY"), (["kind=r1"], "No rule of the file is called 'kind'"), (["safe=r1"], "Leave it out")],
)
def test_a_rule_that_cannot_be_meant_is_refused(words, said):
    with pytest.raises(CommandError, match=said):
        call_command(
            "import_feedback", FILE, "--format=xstest", "--project=refusals", *[f"--rule={word}" for word in words]
        )
    assert not Project.objects.exists()


def test_the_command_says_what_came_in_and_what_comes_next():
    out = StringIO()
    call_command("import_feedback", FILE, "--format=xstest", "--project=refusals", stdout=out)
    assert "7 dialogues with 7 openings, 14 verdicts on 2 rules." in out.getvalue()
    assert "export --project refusals --kind rules" in out.getvalue()


# Faults


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([ROW, ROW.replace("homonyms", "puns")], r"line 3: field type should be one of XSTest's 18 types, not 'puns'"),
        ([ROW.replace("2_full", "4_full")], r"line 2: field annotation_2 should be one of 1_full_compliance"),
        (
            ['a,homonyms,"one\ntwo",b,1_full_compliance,3', ROW + ",more"],
            r"line 2: field annotation_2.*\n.*line 4: 7 f",
        ),
        ([ROW, 'x,homonyms,"May I?,You may.,1,2'], r"line 3: no valid CSV"),
        ([ROW.replace("May I?", " ")], r"line 2: field prompt is empty"),
        ([ROW.replace("x,", ",", 1)], r"line 2: field id should have 1 to 200"),
        ([ROW.replace("You", "Y\x00u")], r"line 2: field completion holds"),
        ([], r"holds no lines"),
    ],
)
def test_a_fault_is_named_and_nothing_taken_in(tmp_path, rows, said):
    with pytest.raises(ImportRefused, match=said):
        take_in(written(tmp_path, *rows))
    assert not Project.objects.exists()


def test_a_file_of_prompts_alone_is_refused_by_its_missing_column(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("id,prompt,type,label\n1,May I?,homonyms,safe\n")
    with pytest.raises(ImportRefused, match="line 2: field completion is missing"):
        take_in(path)


def test_bytes_that_are_no_text_and_a_column_twice_are_named(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(HEAD.encode() + b"\n" + ROW.replace("You", "Y\xff").encode("latin-1"))
    with pytest.raises(ImportRefused, match="line 2: byte .* is not UTF-8"):
        take_in(path)
    path.write_text("id,id\n1,2\n")
    with pytest.raises(ImportRefused, match="line 1: column 'id' stands there twice"):
        take_in(path)


def test_a_quotation_mark_left_open_does_not_swallow_the_rest_of_the_file(tmp_path, monkeypatch):
    path = written(tmp_path, 'x,homonyms,"' + "May I?\n" * 40_000)
    with pytest.raises(ImportRefused, match="line 2: no valid CSV .*quotation mark missing"):
        take_in(path)
    monkeypatch.setattr(reading, "LONGEST_LINE", 20)
    with pytest.raises(ImportRefused, match="longer than"):
        take_in(written(tmp_path, ROW))


# The original files


ORIGINAL = ("mistralguard", "mistralinstruct")


def original(model: str) -> Path:
    return ORIGINALS / "xstest" / f"xstest_v2_completions_{model}.dev.csv.gz"


@needs_originals
def test_every_type_of_the_prompts_file_lies_on_the_side_it_gives():
    said = {(row["type"], row["label"]) for row in rows_of(ORIGINALS / "xstest" / "xstest_prompts.dev.csv.gz")}
    assert said == {(one, "safe") for one in SAFE_TYPES} | {(one, "unsafe") for one in UNSAFE_TYPES}


@needs_originals
@pytest.mark.parametrize("model", ORIGINAL)
def test_the_original_rows_can_be_written_again_from_the_rows(model):
    take_in(original(model))
    assert again() == rows_of(original(model))
    assert list(violations()) == []


@needs_originals
def test_agreement_from_the_rows_is_that_of_the_files_themselves():
    import_files([original(model) for model in ORIGINAL], file_format="xstest", slug="refusals")
    published = rule_sets.published_set(Project.objects.get(slug="refusals"))
    assert published is not None
    rows = [row for model in ORIGINAL for row in rows_of(original(model))]
    assert sum(row["annotation_1"] != row["annotation_2"] for row in rows) == 25
    for one in rule_figures.figures_of(published).rules:
        unsafe = one.rule.key == "no-help-with-harm"
        pairs = [
            (row["annotation_1"], row["annotation_2"]) for row in rows if row["type"].startswith("contrast") == unsafe
        ]
        assert one.agreement.units == len(pairs)
        assert one.agreement.value == pytest.approx(alpha_by_coincidences(pairs), abs=1e-9)
        units = rule_figures._verdicts({one.rule.pk: one.rule.pk})[one.rule.pk].values()
        raw = sum(a == b for a, b in pairs) / len(pairs)
        assert same_share(units).value == pytest.approx(raw, abs=1e-9)


def alpha_by_coincidences(pairs: list[tuple[str, str]]) -> float:
    """Krippendorff's alpha of pairs of labels by his own steps: the matrix of coincidences, then the metric."""
    order = ("1_full_compliance", "3_partial_refusal", "2_full_refusal")
    matrix: Counter[tuple[str, str]] = Counter()
    for a, b in pairs:
        matrix[a, b] += 1
        matrix[b, a] += 1
    margin = {c: sum(matrix[c, k] for k in order) for c in order}
    n = sum(margin.values())

    def metric(c: str, k: str) -> float:
        low, high = sorted((order.index(c), order.index(k)))
        return (sum(margin[g] for g in order[low : high + 1]) - (margin[c] + margin[k]) / 2) ** 2

    observed = sum(matrix[c, k] * metric(c, k) for c in order for k in order) / n
    expected = sum(margin[c] * margin[k] * metric(c, k) for c in order for k in order) / (n * (n - 1))
    return 1 - observed / expected
