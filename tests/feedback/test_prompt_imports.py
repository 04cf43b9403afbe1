"""Prompts taken in: what is left out and why, what keeps together, hints without words, once only, all or nothing."""

from __future__ import annotations

import gzip
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from feedback import demonstrations_wanted, dialogues, prompt_imports
from feedback.models import AuditEntry, Dialogue, Import, Project, Prompt, PromptGroup
from tests import make
from tests.feedback.sources import file_of

LONG = "Please read this letter of an old gardener to her neighbour with care, and then "
pytestmark = [pytest.mark.django_db, pytest.mark.services]


@pytest.fixture(autouse=True)
def project(settings, tmp_path) -> Project:
    settings.DATA_DIR = tmp_path / "kept"
    settings.DATA_DIR.mkdir()
    return make.make_project(with_policy=False)


def text_file(tmp_path: Path, *lines: str, name: str = "prompts.txt") -> Path:
    path = tmp_path / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def run(*paths: Path, **options: Any) -> str:
    out = StringIO()
    call_command("import_prompts", *paths, "--project=plant-desk", stdout=out, **options)
    return out.getvalue()


def openings() -> list[str]:
    return [prompt.opening for prompt in Prompt.objects.order_by("pk")]


# Reading


def test_text_has_a_prompt_on_each_line(tmp_path):
    told = run(text_file(tmp_path, "Name a tree.", "", "  Name a bush.  "), source="desk")
    assert openings() == ["Name a tree.", "Name a bush."]
    prompt = Prompt.objects.order_by("pk")[0]
    assert (prompt.source, prompt.weight, prompt.is_active) == ("desk", 1.0, True)
    assert prompt.messages == [{"role": "user", "content": "Name a tree."}]
    assert "2 lines, 2 prompts" in told and "nothing else is to be done" in told


def test_or_between_blank_lines_where_that_is_said(tmp_path):
    path = text_file(tmp_path, "", "Name a tree", "and its leaf.", "", "", "Name a bush.")
    run(path, kind="paragraphs")
    assert openings() == ["Name a tree\nand its leaf.", "Name a bush."]


def test_csv_and_json_have_columns_and_the_others_are_kept(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text('text,who,topic\n"Name a tree,\nplease.",7,trees\n')
    run(path, column="text", author_column="who")
    assert Prompt.objects.get().details == {"author": "7", "fields": {"topic": "trees"}}
    run(file_of(tmp_path, {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}]}))
    assert [len(prompt.messages) for prompt in Prompt.objects.order_by("pk")] == [1, 2]


def test_a_gzip_file_is_read_by_the_end_of_its_inner_name(tmp_path):
    path = tmp_path / "prompts.txt.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbfName a tree.\n"))
    run(path)
    assert openings() == ["Name a tree."]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"Hi.\nA\xff\n", "a.txt, line 2: byte 2 is not UTF-8"),
        ("a.txt", b"Hi.\nA\x00\n", "a.txt, line 2: column 'prompt' holds '.x00'"),
        ("a.txt", b"\n\n", "a.txt holds no lines"),
        ("a.csv", b"prompt\n\"Hi\n", "a.csv, line 2: no valid CSV"),
        ("a.csv", b"text\nHi\n", "column 'prompt' is missing; there are 'text'. Name the prompts' with --column"),
        ("a.jsonl", b'{"prompt": "Hi"}\n{"prompt": 3}\n', "line 2: column 'prompt' should be text, or a list"),
        ("a.jsonl", b'{"prompt": "Hi"}\n{"prompt": \n', "line 2: column 12: no valid JSON"),
        ("a.jsonl", b'{"prompt": [{"role": "bot", "content": "x"}]}', "role should be one of system, user"),
        ("a.jsonl", b'{"prompt": "x", "y": NaN}', "line 1: NaN is no number"),
        ("a.doc", b"x", "does not end in .txt, .md, .csv"),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_line_and_nothing_comes_in(tmp_path, name, content, told):
    whole = text_file(tmp_path, "Name a tree.", name="whole.txt")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CommandError, match=told):
        run(whole, path)
    assert not Prompt.objects.exists() and not Import.objects.exists()


# What is left out


def test_the_same_in_other_spelling_is_left_out_within_a_file_and_beside_what_is_here(tmp_path, project):
    make.make_prompt(project, "Why are my basil leaves yellow?")
    told = run(text_file(tmp_path, "why are my  BASIL leaves yellow", "Name a tree.", "name a tree!", "Name a bush."))
    assert openings() == ["Why are my basil leaves yellow?", "Name a tree.", "Name a bush."]
    assert "left out, here already: 1 (line 1)" in told
    assert "left out, the same as another one: 1 (line 3)" in told


def test_what_shares_a_long_beginning_is_left_out_as_long_as_the_option_says(tmp_path):
    path = text_file(tmp_path, f"{LONG}answer it.", f"{LONG}sum it up.", "Short.", "Shorter.")
    assert "left out, beginning as another one: 1 (line 2)" in run(path, prefix=60, dry_run=True)
    assert "4 prompts" in run(path, prefix=0, dry_run=True)
    assert "4 prompts" in run(path, dry_run=True)  # they share less than the default
    run(text_file(tmp_path, f"{LONG}answer it.", name="first.txt"))
    told = run(path, prefix=60)
    assert "left out, here already: 1 (line 1)" in told and "beginning as another one: 1 (line 2)" in told


def test_no_more_than_so_many_by_one_author_those_that_are_here_included(tmp_path):
    rows = [{"prompt": f"Question {at}?", "who": "rosa"} for at in range(4)] + [{"prompt": "Mine?", "who": None}]
    told = run(file_of(tmp_path, *rows), author_column="who", per_author=3)
    assert "left out, by an author of whom there are enough: 1 (line 4)" in told
    more = file_of(
        tmp_path, {"prompt": "One more?", "who": "rosa"}, {"prompt": "Another?", "who": "max"}, name="b.jsonl"
    )
    assert "of whom there are enough: 1 (line 1)" in run(more, author_column="who", per_author=3)
    assert Prompt.objects.count() == 5
    assert prompt_imports.MOST_BY_ONE_AUTHOR == 200


def test_what_opens_no_dialogue_or_is_too_long_is_left_out(tmp_path):
    ended = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    told = run(file_of(tmp_path, {"prompt": ended}, {"prompt": "x" * 8001}, {"prompt": "Fine."}))
    assert "do not end with what a user says: 1 (line 1)" in told
    assert "longer than 8,000 characters: 1 (line 2)" in told
    assert openings() == ["Fine."]


def test_personal_data_is_hinted_at_by_line_and_kind_and_never_by_its_words(tmp_path):
    path = text_file(tmp_path, "Name a tree.", "Write to rosa@example.org for me.", "My card is 4111 1111 1111 1111.")
    told = run(path, dry_run=True, json=tmp_path / "report.json")
    assert "look again at line 2: e-mail address?" in told and "look again at line 3: card number?" in told
    report = (tmp_path / "report.json").read_text()
    assert json.loads(report)["files"][0]["hints"][0] == {"line": 2, "kinds": ["e-mail address"]}
    for words in (told, report):
        assert "rosa" not in words and "4111" not in words
    assert "may hold a person's data: 2 (line 2, 3)" in run(path, without_personal_data=True)
    assert openings() == ["Name a tree."]


# Where they go


def test_a_group_lies_on_one_side_and_others_by_their_fingerprint(tmp_path):
    rows = [{"prompt": f"Question {at}?", "book": at % 4} for at in range(40)]
    told = run(file_of(tmp_path, *rows), group_column="book")
    assert sorted(PromptGroup.objects.values_list("key", flat=True)) == ["0", "1", "2", "3"]
    assert Prompt.objects.get(messages__0__content="Question 5?").group.key == "1"
    run(text_file(tmp_path, *(f"Other {at}?" for at in range(60))))
    assert PromptGroup.objects.count() == 64
    assert set(PromptGroup.objects.values_list("split", flat=True)) == {"train", "validation", "test"}
    assert "train" in told


def test_a_side_is_given_and_an_opening_that_lies_elsewhere_is_refused(tmp_path, project):
    run(text_file(tmp_path, "Name a tree."), split="validation")
    assert PromptGroup.objects.get().split == "validation"
    again = file_of(tmp_path, {"prompt": [{"role": "user", "content": "Name a tree."},
                                          {"role": "assistant", "content": "An oak."},
                                          {"role": "user", "content": "Another?"}]})  # fmt: skip
    with pytest.raises(CommandError, match="lie in validation already and cannot go to test"):
        run(again, split="test")
    assert Prompt.objects.count() == 1
    with pytest.raises(CommandError, match="'nowhere' is no side of the split"):
        run(again, split="nowhere")


def test_prompts_may_wait_for_a_manager(tmp_path):
    assert "make the prompts active" in run(text_file(tmp_path, "Name a tree."), inactive=True)
    assert not Prompt.objects.get().is_active


# Once, all or nothing


def test_a_dry_run_changes_nothing_and_the_same_file_twice_is_noticed(tmp_path):
    path = text_file(tmp_path, "Name a tree.")
    assert "nothing was changed" in run(path, dry_run=True)
    assert not Prompt.objects.exists()
    run(path)
    source = Import.objects.get()
    assert (source.format, source.report["counts"]) == ("prompts", {"lines": 1, "prompts": 1})
    assert AuditEntry.objects.get(action="prompts.taken_in").details["prompts"] == 1
    copy = tmp_path / "copy.txt.gz"
    copy.write_bytes(gzip.compress(path.read_bytes()))
    assert "imported already on" in run(copy)
    assert Import.objects.count() == 1


def test_the_same_file_twice_in_one_command_comes_in_once(tmp_path):
    one, other = text_file(tmp_path, "A tree."), text_file(tmp_path, "A tree.", name="other.txt")
    assert "the same as" in run(one, other)
    assert Import.objects.count() == 1


def test_what_fails_while_it_is_written_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(prompt_imports, "CHUNK", 1)
    monkeypatch.setattr(prompt_imports.audit, "record", lambda *args, **fields: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(text_file(tmp_path, "Name a tree.", "Name a bush."))
    assert not Prompt.objects.exists() and not PromptGroup.objects.exists()


def test_a_project_that_is_not_there_or_a_rehearsal_is_refused(tmp_path, project):
    Project.objects.filter(pk=project.pk).update(is_rehearsal=True)
    with pytest.raises(CommandError, match="is a rehearsal"):
        run(text_file(tmp_path, "Hi."))
    with pytest.raises(CommandError, match="There is no project other"):
        call_command("import_prompts", text_file(tmp_path, "Hi."), "--project=other")
    with pytest.raises(CommandError, match="Name a file, or a dataset"):
        run()
    with pytest.raises(CommandError, match="A weight is a number from 0 to 100, not -1"):
        Project.objects.filter(pk=project.pk).update(is_rehearsal=False)
        run(text_file(tmp_path, "Hi."), weight=-1.0)


def test_a_file_that_changes_meanwhile_is_refused(tmp_path, monkeypatch):
    path = text_file(tmp_path, "Name a tree.")
    known = prompt_imports.mark_known

    def change_it_too(*args: Any) -> None:
        known(*args)
        path.write_text("Name a bush.\n")

    monkeypatch.setattr(prompt_imports, "mark_known", change_it_too)
    with pytest.raises(CommandError, match="changed while it was read"):
        run(path)
    assert not Prompt.objects.exists()


# How often they are drawn


def test_dialogues_are_opened_from_prompts_as_often_as_they_weigh(tmp_path, project):
    run(text_file(tmp_path, "Heavy?"), weight=2.0, split="train")
    run(text_file(tmp_path, "Light?", name="b.txt"), weight=1.0, split="train")
    run(text_file(tmp_path, "Never?", name="c.txt"), weight=0.0, split="train")
    drawn = []
    for _ in range(6):
        prompt = dialogues._least_used_prompts(project)[0]
        Dialogue.objects.create(project=project, prompt=prompt)
        drawn.append(prompt.opening)
    assert (drawn.count("Heavy?"), drawn.count("Light?")) == (4, 2)
    assert [prompt.opening for prompt in dialogues._least_used_prompts(project)].count("Never?") == 0


def test_replies_are_asked_for_to_the_heaviest_prompts_first(tmp_path, project):
    run(text_file(tmp_path, "Light?", "Other?"), split="train")
    run(text_file(tmp_path, "Heavy?", name="b.txt"), weight=3.0, split="train")
    run(text_file(tmp_path, "Never?", name="c.txt"), weight=0.0, split="train")
    Project.objects.filter(pk=project.pk).update(demonstrations_open=True, ready_demonstrations=1)
    project.refresh_from_db()
    assert demonstrations_wanted.keep_demonstrations_ready(project) == 1
    assert Dialogue.objects.get(kind="demonstration").prompt.opening == "Heavy?"
