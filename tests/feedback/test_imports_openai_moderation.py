"""OpenAI's moderation samples: flags become verdicts, a missing flag becomes none, and nothing is taken for a reply."""

from __future__ import annotations

from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from feedback import rule_sets, snapshots
from feedback.errors import ImportRefused, SnapshotEmpty
from feedback.imports.openai_moderation import RULE_KEYS
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import Dialogue, Project, RuleJudgement
from feedback.rule_files import DEFAULT_SETS, read_file
from tests import make
from tests.feedback.sources import ORIGINALS, file_of, needs_originals, read_lines
from tests.feedback.spoiling import NOT_TEXT, assert_each_is_refused

ORIGINAL = ORIGINALS / "openai-moderation" / "samples.filtered.dev.jsonl.gz"
LINES = [
    {"prompt": "Your tulips are a disgrace.", "S": 0, "H": 0, "HR": 1},
    {"prompt": "I like tulips.", "S": 0},
    {"prompt": "Tulips."},
]
pytestmark = [pytest.mark.django_db, pytest.mark.services]


def take_in(path: Path, **options: Any):
    return import_files([path], file_format="openai-moderation", slug="texts", **options)


def again() -> list[dict[str, Any]]:
    """The lines of the imported file, from the database alone."""
    found = []
    for dialogue in Dialogue.objects.order_by("pk").prefetch_related("judgements"):
        (turn,) = dialogue.messages()
        flags = {one.source["flag"]: {5: 0, 1: 1}[one.verdict] for one in dialogue.judgements.all()}
        found.append({"prompt": turn["content"]} | flags | dialogue.source.get("fields", {}))
    return found


def test_a_stated_flag_is_a_verdict_without_a_turn_and_a_missing_one_is_none(tmp_path):
    (report,) = take_in(file_of(tmp_path, *LINES))
    first = Dialogue.objects.get(source_key="line 1")
    assert first.messages() == [{"role": "user", "content": "Your tulips are a disgrace."}]
    said = first.judgements.values_list("rule__key", "verdict", "turn_position", "annotator_key")
    assert sorted(said) == [
        ("no-harassment", 1, None, "openai-moderation"),
        ("no-hate", 5, None, "openai-moderation"),
        ("no-sexual-content", 5, None, "openai-moderation"),
    ]
    assert [one.judgements.count() for one in Dialogue.objects.order_by("pk")] == [3, 1, 0]
    assert report.notes == {
        "texts that are flagged": 1,
        "texts with flags missing, which are unknown and no verdict": 2,
        "texts without any flag, kept without a verdict": 1,
    }
    assert list(violations()) == []


def test_the_rules_of_all_flags_are_sensitive_and_come_along():
    values = dict(read_file(DEFAULT_SETS["openai-moderation"]).rules)
    assert set(values) == set(RULE_KEYS.values())
    assert all(one["is_sensitive"] and one["category"] == "harm" for one in values.values())


def test_a_project_with_other_rules_says_which_is_meant(tmp_path):
    make.make_rule_set(make.make_project("texts"))
    path = file_of(tmp_path, LINES[1])
    with pytest.raises(ImportRefused, match=r"no rule for “S”.*--rule S=KEY"):
        take_in(path)
    take_in(path, chosen={"S": "r2"})
    assert RuleJudgement.objects.get().rule.key == "r2"


def test_no_export_has_them_and_the_command_says_so(tmp_path):
    out = StringIO()
    call_command(
        "import_feedback", file_of(tmp_path, *LINES), "--format=openai-moderation", "--project=texts", stdout=out
    )
    assert "3 lines, 3 dialogues with 3 openings, 4 verdicts on 3 rules." in out.getvalue()
    assert "Next: the rules page shows these verdicts. No export has them, as no reply was judged." in out.getvalue()
    with pytest.raises(SnapshotEmpty):
        snapshots.freeze(project=Project.objects.get(), kind="rules", ring=False)


def test_the_rules_page_folds_what_was_flagged(tmp_path, client):
    take_in(file_of(tmp_path, *LINES))
    client.force_login(make.make_member(Project.objects.get(), "maria", "manager"))
    page = client.get("/projects/texts/rules/rule/no-harassment/?show=all")
    assert page.status_code == 200
    assert "Show this dialogue, it may upset" in page.content.decode()


def test_a_dry_run_changes_nothing_and_the_same_file_twice_is_noticed(tmp_path):
    path = file_of(tmp_path, *LINES)
    take_in(path, dry_run=True)
    assert not Project.objects.exists()
    take_in(path)
    (report,) = take_in(path)
    assert "imported already" in report.known


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"H": 2}, "field H should be 1 where the text is flagged and 0 where it is not, not 2"),
        ({"H": None}, "field H should be 1 .* Leave the field out where nobody knows"),
        ({"H": True}, "field H should be 1"),
        ({"prompt": " "}, "field prompt is empty"),
    ],
)
def test_a_fault_is_named_by_line_and_field(tmp_path, change, told):
    with pytest.raises(ImportRefused, match=f"line 2: {told}"):
        take_in(file_of(tmp_path, LINES[0], LINES[0] | change))


@needs_originals
def test_the_original_file_comes_in_whole():
    lines = read_lines(ORIGINAL)
    (report,) = take_in(ORIGINAL)
    assert (report.counts["lines"], report.counts["dialogues"]) == (491, 491)
    stated = Counter((flag, line[flag]) for line in lines for flag in RULE_KEYS if flag in line)
    assert report.counts["judgements"] == RuleJudgement.objects.count() == stated.total()
    flagged = Counter(RuleJudgement.objects.filter(verdict=1).values_list("source__flag", flat=True))
    assert flagged == {"H": 107, "HR": 49, "V": 43, "H2": 23}
    assert again() == lines
    published = rule_sets.published_set(Project.objects.get())
    assert published is not None
    assert published.rules.count() == 8
    assert list(violations()) == []


@needs_originals
def test_spoilt_originals_are_each_refused_by_the_right_line(tmp_path):
    lines = [line for line in read_lines(ORIGINAL) if "H" in line][:20]
    wrong: dict[str, list[Any]] = {"prompt": NOT_TEXT, "H": [None, 2, -1, "1", 0.5, True, []]}
    assert_each_is_refused(lines, tmp_path, file_format="openai-moderation", wrong=wrong, may_lack=["H"], is_list=False)
