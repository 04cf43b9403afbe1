"""Rule sets as files: read all or nothing, errors that name rule, field and remedy, and back again the same."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st

from feedback import rule_files, rule_sets, rule_texts
from feedback.errors import DraftInTheWay, RuleFileRefused
from feedback.models import Project, Rule, RuleSet
from feedback.rule_files import RuleFile, read_text, written
from rewardtrain.starter.violations import RULES_FILE, rules
from tests import make

RULE = {"key": "kind", "name": "Stays kind", "category": "harm", "wording": "Be kind."}


def file_of(*rules: dict[str, Any], **top: Any) -> str:
    return json.dumps({"rules": [RULE | rule for rule in rules], **top})


# What comes along


def test_sparrows_rules_come_along_whole_and_in_the_form_we_write() -> None:
    text = rule_files.DEFAULT_SETS["sparrow"].read_text()
    found = read_text(text)
    assert len(found.rules) == 23
    assert written(found) == text
    assert all(len(values["breaks"]) == len(values["keeps"]) == 2 for _, values in found.rules)
    assert all(values["ideas"] and values["theme"] for _, values in found.rules)
    assert "own words" in found.note
    kinds = [values["category"] for _, values in found.rules]
    assert {kind: kinds.count(kind) for kind in kinds} == {"harm": 12, "correct": 7, "helpful": 4}


def test_the_plant_desks_dozen_can_be_read_as_a_rule_set() -> None:
    found = rule_files.read_file(RULES_FILE)
    assert [key for key, _ in found.rules] == [rule.key for rule in rules()]
    assert [values["wording"] for _, values in found.rules] == [rule.wording for rule in rules()]
    assert all(values["theme"] and values["ideas"] for _, values in found.rules)


# There and back


LINES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40).filter(
    lambda text: text == " ".join(text.split())
)
LISTS = st.lists(LINES, max_size=3, unique=True)
VALUES = st.fixed_dictionaries(
    {"name": LINES, "wording": LINES, "breaks": LISTS, "keeps": LISTS, "ideas": LISTS, "theme": LINES | st.just(""),
     "warning": LINES, "is_sensitive": st.booleans(), "probe_quota": st.integers(0, 900),
     "weight": st.floats(0, 100, allow_nan=False), "category": st.sampled_from(rule_texts.CATEGORIES)}
)  # fmt: skip


@given(st.lists(VALUES, min_size=1, max_size=3, unique_by=lambda values: values["name"].casefold()), LINES)
def test_what_was_written_is_read_as_it_was(values, note: str) -> None:
    found = RuleFile(note, [(f"r{place}", rule_texts.checked(one)) for place, one in enumerate(values)])
    for form in rule_files.FORMATS:
        text = written(found, form)
        assert read_text(text) == found
        assert written(read_text(text), form) == text


# What is refused


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (file_of({"name": ""}), "Rule 1 (“”), name: Give it a short name"),
        (file_of({}, {"key": "b", "name": "B", "wording": "x" * 601}), "Rule 2 (“B”), wording: It has 601 characters"),
        (file_of({"colour": "red"}), "Rule 1: nobody knows the field “colour”. Known: key, name, category"),
        (file_of({"category": "nice"}), "category: Choose harm, correct or helpful."),
        (file_of({"key": "No Spaces"}), "Rule 1 (“Stays kind”), key: Use small letters"),
        (file_of({"key": True}), "key: This is yes or no where a word is wanted; put it in quotes."),
        (file_of({"wording": 7}), "wording: This is a number where a text is wanted"),
        (file_of({"breaks": "one"}), "breaks: This is a text where a list of texts is wanted"),
        (file_of({"breaks": ["a", ["b"]]}), "breaks: Number 2: This is a list"),
        (file_of({"sensitive": True}), "warning: Say what may appear"),
        (file_of({"sensitive": "yes"}), "sensitive: This is a text; write true or false."),
        (file_of({"weight": -1}), "weight: Write a number from 0 to 100."),
        (file_of({}, {"name": "Other"}), "Rule 2, key: rule 1 has the same."),
        (file_of({}, {"key": "other", "name": "stays KIND"}), "Rule 2, name: rule 1 has the same."),
        (file_of({}, format="nestbox rules 9"), "this version reads 'nestbox rules 1'"),
        (file_of({}, notes="x"), "At the top: nobody knows the field “notes”. Known: format, note, rules."),
        ('{"rules": [{"key": "a", "key": "b"}]}', "“key” stands twice in one table"),
        ('{"rules": [{"weight": NaN}]}', "NaN is no number"),
        ('{"rules": []}', "It holds no rule."),
        ('{"rules": ["a"]}', "Rule 1: this is a text where a table of fields is wanted."),
        ('{"rules": [{"key": "a"}]}', "Rule 1: it has no name and no category and no wording."),
        ("rules:\n- key: a\n  key: b", "“key” stands twice in one table, line 3"),
        ("rules: &a [*a]", "an alias in line 1; write it out"),
        ("rules:\n- !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("rules: [", "This is no YAML that can be read"),
        ("{", "This is no JSON that can be read"),
        ("[" * 100_000, "This is no JSON that can be read"),
        ("just words", "It has no list named “rules”."),
        ("", "It has no list named “rules”."),
        ("rules: 2026-01-01", "It has no list named “rules”."),
        ("rules:\n- {key: a, name: B, category: harm, wording: 2026-01-01}", "wording: This is something else"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(RuleFileRefused) as refusal:
        read_text(text)
    assert said in refusal.value.message


def test_a_file_that_cannot_be_read_names_what_comes_along(tmp_path: Path) -> None:
    with pytest.raises(RuleFileRefused, match="Sets that come along: openai-moderation, sparrow"):
        rule_files.read_file(tmp_path / "nothing.yaml")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RuleFileRefused, match="UTF-8"):
        rule_files.read_file(tmp_path / "bytes")
    (tmp_path / "large").write_bytes(b" " * 1_000_001)
    with pytest.raises(RuleFileRefused, match="larger"):
        rule_files.read_file(tmp_path / "large")


# Into a project


@pytest.fixture
def project(db: None) -> Project:
    return make.make_project()


def run(name: str, *args: object, **options: object) -> str:
    out = StringIO()
    call_command(name, *map(str, args), stdout=out, **options)
    return out.getvalue()


def test_a_file_becomes_the_draft_and_nothing_else(project: Project) -> None:
    said = run("import_rules", "--project", "plant-desk", "sparrow")
    draft = rule_sets.draft_of(project)
    assert draft is not None and draft.rules.count() == 23
    assert (draft.number, draft.rules.get(position=6).key, "own words" in draft.note) == (1, "insults", True)
    assert "23 rules; 23 added, 0 changed, 0 removed" in said and "It is draft 1 now" in said


def test_a_dry_run_changes_nothing_and_says_what_it_would(project: Project, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    said = run("import_rules", "--project", "plant-desk", "sparrow", "--publish", "--dry-run", "--json", report)
    assert not RuleSet.objects.exists()
    assert "A dry run: nothing was changed" in said
    assert len(json.loads(report.read_text())["added"]) == 23


def test_a_file_is_published_where_somebody_says_what_changed_words_mean(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(file_of({}))
    assert "Rule set 1 is published" in run("import_rules", "--project", "plant-desk", path, "--publish")
    path.write_text(file_of({"wording": "Be kind to everybody."}))
    with pytest.raises(CommandError, match="Add --changed wording or --changed stale"):
        run("import_rules", "--project", "plant-desk", path, "--publish")
    assert list(RuleSet.objects.values_list("number", "state")) == [(1, "published")]
    run("import_rules", "--project", "plant-desk", path, "--publish", "--changed", "wording")
    assert Rule.objects.get(rule_set__number=2).continues == Rule.objects.get(rule_set__number=1)
    assert "nothing was changed" in run("import_rules", "--project", "plant-desk", path, "--publish")
    assert list(RuleSet.objects.values_list("number", "state")) == [(1, "retired"), (2, "published")]


def test_a_draft_somebody_works_on_is_not_replaced_by_accident(project: Project, tmp_path: Path) -> None:
    draft = rule_sets.open_draft(project=project, by=None)
    make.make_rule(draft)
    path = tmp_path / "rules.json"
    path.write_text(file_of({}))
    with pytest.raises(CommandError, match="Draft 1 has 1 new that nobody published"):
        run("import_rules", "--project", "plant-desk", path)
    with pytest.raises(DraftInTheWay):
        rule_files.take_in(project=project, found=read_text(file_of({})), by=None)
    run("import_rules", "--project", "plant-desk", path, "--replace-draft")
    assert [rule.key for rule in draft.rules.all()] == ["kind"]


def test_a_wrong_file_leaves_the_draft_as_it_was(project: Project, tmp_path: Path) -> None:
    draft = rule_sets.open_draft(project=project, by=None)
    path = tmp_path / "rules.json"
    path.write_text(file_of({}, {"key": "b", "name": ""}))
    with pytest.raises(CommandError, match=r"rules.json: Rule 2"):
        run("import_rules", "--project", "plant-desk", path)
    assert not draft.rules.exists()
    with pytest.raises(CommandError, match="Projects: plant-desk"):
        run("import_rules", "--project", "orchard", path)


def test_what_is_exported_can_be_imported_elsewhere_and_is_the_same(project: Project, tmp_path: Path) -> None:
    run("import_rules", "--project", "plant-desk", "sparrow", "--publish")
    assert run("export_rules", "--project", "plant-desk") == rule_files.DEFAULT_SETS["sparrow"].read_text()
    orchard = make.make_project("orchard")
    for form in rule_files.FORMATS:
        path = tmp_path / f"rules.{form}"
        said = run("export_rules", "--project", "plant-desk", "--format", form, "--out", path)
        assert "Rule set 1 (published), 23 rules, written to" in said
        run("import_rules", "--project", "orchard", path, "--replace-draft")
        text = path.read_text()
        assert run("export_rules", "--project", "orchard", "--version", 1, "--format", form) == text
    assert rule_sets.draft_of(orchard) is not None


def test_a_rule_set_that_is_not_there_is_named_with_those_that_are(project: Project) -> None:
    with pytest.raises(CommandError, match="no published rule set. Its rule sets: none yet"):
        run("export_rules", "--project", "plant-desk")
    make.make_rule_set(project)
    with pytest.raises(CommandError, match=r"no rule set 7. Its rule sets: 1 \(published\)"):
        run("export_rules", "--project", "plant-desk", "--version", 7)
