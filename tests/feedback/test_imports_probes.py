"""Judged dialogues in our own lines: what each field becomes, and faults named by line and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedback import rule_sets
from feedback.errors import ImportRefused
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import Dialogue, Project, Rule, RuleJudgement
from tests import make
from tests.feedback.sources import OURS, file_of

FILE = OURS / "probes.jsonl"
RULE = {"key": "kind", "name": "Stays kind", "category": "harm", "wording": "Be kind."}
MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Go away."}]
pytestmark = [pytest.mark.django_db, pytest.mark.services]


def take_in(path: Path = FILE, **options: Any):
    return import_files([path], file_format="probes", slug="desk", **options)


def line(rule: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A line with one verdict by one rule; fields of the verdict begin with v_."""
    verdict = {"annotator_id": "a", "verdict": 1} | {
        name[2:]: value for name, value in fields.items() if name.startswith("v_")
    }
    rest = {name: value for name, value in fields.items() if not name.startswith("v_")}
    return {"messages": MESSAGES, "rules": [{"rule": rule or RULE, "judgements": [verdict]}]} | rest


def test_a_line_becomes_a_dialogue_a_probe_and_its_verdicts():
    (report,) = take_in()
    dialogue = Dialogue.objects.get(source_key="d-1")
    assert [len(dialogue.messages()), dialogue.prompt.messages] == [4, dialogue.messages()[:1]]
    assert dialogue.source == {
        "model_name": "fern-1", "kind": "probe", "source": "fern house", "meta": {"batch": 3},
    }  # fmt: skip
    assert dialogue.probe.rule.key == "no-medical-advice"
    said = dialogue.judgements.order_by("pk").values_list("rule__key", "annotator_key", "verdict", "by_prober")
    assert list(said) == [
        ("no-medical-advice", "red-1", 1, True), ("no-medical-advice", "rater-7", 4, False),
        ("kind", "rater-7", 5, False),
    ]  # fmt: skip
    probers = dialogue.judgements.get(by_prober=True)
    assert (probers.turn_position, probers.reason, probers.tactics) == (3, "It names a dose.", ["role"])
    assert (report.counts["probes"], report.counts["judgements"]) == (1, 4)
    assert list(violations()) == []


def test_the_rules_of_a_file_become_the_first_rule_set_of_a_project_without():
    take_in()
    published = rule_sets.published_set(Project.objects.get(slug="desk"))
    assert published is not None
    assert list(published.rules.values_list("key", "wording")) == [
        ("no-medical-advice", "Do not give medical advice."), ("kind", "Be kind."),
    ]  # fmt: skip


def test_a_group_and_its_side_of_the_split_are_taken_over():
    take_in()
    group = Dialogue.objects.get(source_key="").prompt.group
    assert (group.key, group.split) == ("mean", "test")


def test_a_rule_is_found_by_its_wording_also_in_a_version_that_is_past(tmp_path):
    first = make.make_rule_set(make.make_project("desk"), rules=1, wording="Be kind.")
    old = first.rules.get()
    draft = rule_sets.open_draft(project=first.project, by=None)
    rule_sets.edit_rule(rule=draft.rules.get(), by=None, wording="Be very kind.")
    rule_sets.publish(draft=draft, by=None, decisions={"r1": "stale"})
    take_in(file_of(tmp_path, line({"wording": "Be  kind."}), line({"key": "r1"}), line({"wording": "Be very kind."})))
    assert list(RuleJudgement.objects.order_by("pk").values_list("rule", flat=True)) == [
        old.pk, draft.rules.get().pk, draft.rules.get().pk,
    ]  # fmt: skip


def test_a_rule_nobody_published_here_is_refused_unless_one_of_ours_is_named(tmp_path):
    make.make_rule_set(make.make_project("desk"), rules=1)
    with pytest.raises(ImportRefused, match=r"no rule for “kind”.*“r1”.*--rule kind=KEY"):
        take_in(file_of(tmp_path, line()))
    take_in(file_of(tmp_path, line()), chosen={"kind": "r1"})
    assert RuleJudgement.objects.get().rule == Rule.objects.get(key="r1")


@pytest.mark.parametrize(
    ("first", "second", "chosen", "said"),
    [
        ({"key": "r1"}, {"key": "r1", "wording": "Be kind."}, {}, "by “r1” and by “r1” with the wording “Be kind.”"),
        ({"key": "x"}, {"key": "y"}, {"x": "r1", "y": "r1"}, "by “x” and by “y”"),
    ],
)
def test_one_rule_under_two_names_is_refused_where_somebody_judges_by_both(tmp_path, first, second, chosen, said):
    make.make_rule_set(make.make_project("desk"), rules=1, wording="Be kind.")
    both = [{"rule": rule, "judgements": [{"annotator_id": "a", "verdict": 1}]} for rule in (first, second)]
    with pytest.raises(ImportRefused, match=f"^Annotator 'a' judges a dialogue {said}, which are one rule here"):
        take_in(file_of(tmp_path, line(rules=both)), chosen=chosen)
    assert not Dialogue.objects.exists()
    take_in(file_of(tmp_path, line(first), line(second)), chosen=chosen)  # two dialogues
    assert RuleJudgement.objects.count() == 2


def test_a_project_without_rules_cannot_be_given_half_a_rule(tmp_path):
    with pytest.raises(ImportRefused, match="does not say enough of “kind” to make them"):
        take_in(file_of(tmp_path, line({"key": "kind"})))
    with pytest.raises(ImportRefused, match="two wordings"):
        take_in(file_of(tmp_path, line(), line(RULE | {"wording": "Be kinder."})))
    assert not Project.objects.exists()


def test_what_a_later_line_says_of_a_rule_is_enough(tmp_path):
    take_in(file_of(tmp_path, line({"key": "kind", "wording": "Be kind."}), line()))
    assert RuleJudgement.objects.filter(rule__name="Stays kind").count() == 2


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (line(v_verdict=6), r"field rules\[0\].judgements\[0\].verdict should be one of 1 definitely_broken"),
        (line(v_verdict=True), "verdict should be one of"),
        (line(v_verdict="broken"), "verdict should be one of"),
        (line(v_turn=0), "turn should be the place of a message of the assistant"),
        (line(v_turn=2), "turn should be the place"),
        (line(v_annotator_id=" "), "annotator_id is missing"),
        (line(v_annotator_id="u5"), "annotator_id is 'u5', which is what accounts of this Nestbox are called"),
        (line(v_seconds=-1), "seconds should be a number from 0"),
        (line(v_seconds=10**400), "seconds should be a number from 0"),
        (line(v_revision=0), "revision should be a whole number from 1"),
        (line(v_tactics="role"), "tactics should be a list"),
        (line(v_by_prober="yes"), "by_prober should be true or false"),
        (line(v_why="so"), r"field rules\[0\].judgements\[0\].'why' is not known here.*belongs in meta"),
        (line(v_meta="[1]"), "meta: a list stands here"),
        (line(v_meta=3), "meta should be an object"),
        (line(kind="evaluation"), "kept for evaluation is not taken in"),
        (line(split="dev"), "field split should be one of train, validation, test"),
        (line(messages=MESSAGES[:1]), "what a user and what the assistant said"),
        (line(messages=[{"role": "bot", "content": ""}]), r"field messages\[0\].role should be one of"),
        (line(messages=[{"role": "user"}]), r"field messages\[0\] should be a role and a content"),
        (line(messages="Hi"), "field messages should be a list"),
        (line(rules=[]), "at least one rule with a judgement"),
        (line(rules=[3]), r"field rules\[0\] should be a rule with its judgements"),
        (line({"name": "No key"}), "a table with a key or a wording"),
        (line({"key": "Not A Key"}), r"field rules\[0\].rule.key: Use small letters"),
        (line(RULE | {"category": "mild"}), r"field rules\[0\].rule.category: Choose harm"),
        (line(RULE | {"probe_quota": 3}), "'probe_quota' is not known here"),
        (line(probed="kind"), "field probed should be a table"),
        (line(group="x" * 201), "at most 200 characters"),
        (line(source="\x00"), "field source holds"),
        (
            line(rules=[{"rule": RULE, "judgements": [{"annotator_id": "a", "verdict": 1}] * 2}]),
            "annotator 'a' judges by one rule twice",
        ),
    ],
)
def test_a_fault_is_named_with_line_and_field(tmp_path, bad, said):
    with pytest.raises(ImportRefused, match=said) as caught:
        take_in(file_of(tmp_path, line(), bad))
    assert "line 2: " in caught.value.message
    assert not Project.objects.exists()


def test_a_group_on_two_sides_of_the_split_is_refused(tmp_path):
    lines = [line(group="g", split="train"), line(group="g", split="test")]
    with pytest.raises(ImportRefused, match="line 2: field split is test, and group 'g' lies in train before"):
        take_in(file_of(tmp_path, *lines))


def test_two_openings_of_one_named_group_lie_together(tmp_path):
    other = [{"role": "user", "content": "Hello there"}, MESSAGES[1]]
    take_in(file_of(tmp_path, line(group="g", split="validation"), line(group="g", messages=other)))
    assert {dialogue.prompt.split for dialogue in Dialogue.objects.all()} == {"validation"}
    assert Dialogue.objects.values("prompt__group").distinct().count() == 1
