"""Real files of every format, each spoilt in a known place: 200 clear errors, nothing imported, no traceback."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from feedback.errors import ImportRefused
from feedback.imports import FORMATS
from feedback.imports.records import NO_CHOICES, Choices
from feedback.imports.taking_in import import_files
from feedback.models import Import, Project
from tests.feedback.sources import ORIGINALS, OURS, file_of, needs_originals, read_lines
from tests.feedback.spoiling import NOT_TEXT, assert_each_is_refused, spoilt
from tests.feedback.there_and_back import lines_of, written

pytestmark = [pytest.mark.django_db, pytest.mark.services, pytest.mark.usefixtures("own_data_folder")]
EACH = 13  # spoilt files of each format: more than 200 in all
MESSAGES: list[Any] = [None, "x", {}, [], [3], [{"role": "robot", "content": "x"}]]
SYSTEMS = ORIGINALS / "self-instruct" / "human_eval" / "predictions"


@dataclass
class Source:
    """Real records of one format, and values that its fields must not have."""

    records: Sequence[dict[str, Any]]
    wrong: dict[str, Sequence[Any]]
    is_list: bool = False
    may_lack: Sequence[str] = ()
    beside: Sequence[Path] = ()
    choices: Choices = field(default=NO_CHOICES)


def lines(*parts: str) -> list[dict[str, Any]]:
    return read_lines(ORIGINALS.joinpath(*parts))[:15]


def listed(*parts: str) -> list[dict[str, Any]]:
    found = json.loads(gzip.decompress(ORIGINALS.joinpath(*parts).read_bytes()))
    return (found if isinstance(found, list) else [found])[:15]


def exported(kind: str, source: Path, file_format: str, **options: Any) -> list[dict[str, Any]]:
    """Lines of our own that an export made of a real file."""
    import_files([source], file_format=file_format, slug=f"real-{kind}", **options)
    return lines_of(written(f"real-{kind}", kind))[:15]


def pairs() -> list[dict[str, Any]]:
    return [one for one in listed("pandalm", "testset-v1.dev.json.gz") if isinstance(one["response1"], str)]


def tasks() -> list[dict[str, Any]]:
    """Real pairs with three people's labels, in the shape that Label Studio exports."""
    words = {1: "left", 2: "right"}
    found = []
    for one in pairs():
        said = [
            {"completed_by": at, "result": [{"type": "pairwise", "value": {"selected": words[label]}}]}
            for at in (1, 2, 3)
            if (label := one[f"annotator{at}"]) in words
        ]
        found.append({"id": one["idx"], "data": one, "annotations": said})
    return found


def records() -> list[dict[str, Any]]:
    """The same in Argilla's."""
    orders = {1: ["response1", "response2"], 2: ["response2", "response1"]}
    found = []
    for one in pairs():
        said = [
            {"value": orders[one[f"annotator{at}"]], "user_id": f"a{at}"} for at in (1, 2, 3) if one[f"annotator{at}"]
        ]
        fields = {name: one[name] for name in ("instruction", "response1", "response2")}
        found.append({"id": str(one["idx"]), "fields": fields, "responses": {"better": said}})
    return found


def wrong_texts(*names: str) -> dict[str, Sequence[Any]]:
    return dict.fromkeys(names, NOT_TEXT)


SOURCES = {
    "gsm8k": lambda: Source(lines("gsm8k", "train.dev.jsonl.gz"), wrong_texts("question", "answer")),
    "human-eval": lambda: Source(
        lines("human-eval", "HumanEval.dev.jsonl.gz"), wrong_texts("task_id", "prompt", "canonical_solution", "test")
    ),
    "self-instruct": lambda: Source(
        lines("self-instruct", "seed_tasks.dev.jsonl.gz"),
        wrong_texts("id", "instruction") | {"instances": [None, "x", [], {}, [3], [{"input": "x", "output": ""}]]},
    ),
    "self-instruct predictions": lambda: Source(
        read_lines(sorted(SYSTEMS.glob("*.gz"))[0])[:15],
        wrong_texts("instruction", "input", "response"),
        beside=sorted(SYSTEMS.glob("*.gz"))[1:3],
    ),
    "label-studio": lambda: Source(
        tasks(), {"data": [None, "x", [], {}], "annotations": [None, "x", {}, [3], [{"completed_by": 1}]]},
        is_list=True,
        choices=Choices(options={"reply_fields": ["response1", "response2"], "prompt_field": "instruction"}),
    ),
    "argilla": lambda: Source(
        records(), {"fields": [None, "x", [], {}], "responses": ["x", [3], {"better": [{"value": ["x"]}]}]},
        is_list=True,
    ),
    "llmbar": lambda: Source(
        listed("llmbar", "Natural", "dataset.dev.json.gz"), wrong_texts("input", "output_1", "output_2"), is_list=True
    ),
    "pandalm": lambda: Source(
        pairs(), wrong_texts("instruction", "input", "response1") | {"annotator2": [None, 3, "1"]}, is_list=True
    ),
    "mt-bench": lambda: Source(
        lines("mt-bench", "question.dev.jsonl.gz"), {"question_id": [None, "81", -1], "turns": [None, "x", [], [3]]}
    ),
    "openai-moderation": lambda: Source(
        [one for one in lines("openai-moderation", "samples.filtered.dev.jsonl.gz") if "H" in one],
        wrong_texts("prompt") | {"H": [None, 2, "1", True]}, may_lack=["H"],
    ),
    "open-assistant-reports": lambda: Source(
        listed("open-assistant", "sampling_reports", "pythia-1b-deduped-sft_sampling.dev.json.gz"),
        {"model_name": [None, 3, [], ""], "prompts": [None, "x", {}, [], [3], [{"prompt": "x"}]]}, is_list=True,
    ),
    "trl": lambda: Source(
        [{"messages": one["prompt"] + one["completion"]} for one in exported_answers()], {"messages": MESSAGES}
    ),
    "demonstrations": lambda: Source(
        exported_answers(), {"prompt": MESSAGES, "texts": ["x", {}, [], [3], [{}]], "split": [3, "nowhere"]},
        may_lack=["split", "texts"],
    ),
    "rankings": lambda: Source(
        exported("preference", ORIGINALS / "llmbar" / "Natural" / "dataset.dev.json.gz", "llmbar"),
        {"prompt": MESSAGES, "candidates": [None, [], [3], [{}]], "rankings": [None, [], [3]]},
    ),
    "probes": lambda: Source(read_lines(OURS / "probes.jsonl"), {"messages": MESSAGES, "rules": [None, "x", [], [3]]}),
}  # fmt: skip


def exported_answers() -> list[dict[str, Any]]:
    path, options = ORIGINALS / "gsm8k" / "train.dev.jsonl.gz", {"choices": Choices(accepted=True)}
    return exported("demonstrations", path, "gsm8k", **options)


def test_every_format_has_its_spoilt_files_and_there_are_two_hundred() -> None:
    told = {name.split(" ")[0] for name in SOURCES} | set(TEXTS) | {"xstest"}
    assert told == set(FORMATS)
    assert EACH * (len(SOURCES) + len(TEXTS) + 1) >= 200


@needs_originals
@pytest.mark.parametrize("name", sorted(SOURCES))
def test_each_spoilt_file_is_refused_by_the_right_record(name: str, tmp_path: Path) -> None:
    source = SOURCES[name]()
    assert_each_is_refused(
        source.records, tmp_path, file_format=name.split(" ")[0], wrong=source.wrong, is_list=source.is_list,
        may_lack=source.may_lack, beside=source.beside, choices=source.choices, count=EACH,
    )  # fmt: skip


# Where one fault may make more of them: the first one named is the right one

TEXTS = {
    "hh-rlhf": ("hh-rlhf/helpful-base/test.dev.jsonl.gz", ("chosen", "rejected")),
    "open-assistant": ("open-assistant/en_100_tree.dev.jsonl.gz", ("prompt",)),
}


def assert_refused(path: Path, file_format: str, line: int) -> None:
    before = (Project.objects.count(), Import.objects.count())
    with pytest.raises(ImportRefused) as caught:
        import_files([path], file_format=file_format, slug="spoilt")
    first, *_, last = caught.value.message.splitlines()
    assert f"{path.name}, line {line}: " in first, first
    assert last == "Nothing was imported. Mend the file, then import it again."
    assert first.isprintable() and len(first) < 700
    assert (Project.objects.count(), Import.objects.count()) == before


@needs_originals
@pytest.mark.parametrize("file_format", sorted(TEXTS))
def test_the_first_fault_of_a_spoilt_file_has_its_line(file_format: str, tmp_path: Path) -> None:
    name, fields = TEXTS[file_format]
    records, chance = lines(name), random.Random(29)
    wrong = dict.fromkeys(fields, NOT_TEXT[:-1])
    for how in range(EACH):
        place = chance.randrange(1, len(records))  # the first line tells the layout
        raw = [json.dumps(record, ensure_ascii=False).encode() for record in records]
        raw[place] = spoilt(records[place], wrong, (), chance, how)
        path = tmp_path / "spoilt.jsonl"
        path.write_bytes(b"\n".join(raw) + b"\n")
        assert_refused(path, file_format, place + 1)


def spoilt_rows(rows: list[list[str]], chance: random.Random) -> Iterator[tuple[int, list[list[str]]]]:
    """(place of the row, all rows) with one cell of it spoilt, or lost."""
    names = rows[0]
    for _ in range(EACH):
        place = chance.randrange(1, len(rows))
        column = chance.choice(["type", "annotation_1", "annotation_2"])
        row = list(rows[place])
        if chance.random() < 0.3:
            row.pop(chance.randrange(len(row)))
        else:
            row[names.index(column)] = chance.choice(["", "something", "9_full_compliance", "x\x00"])
        yield place, [*rows[:place], row, *rows[place + 1 :]]


@needs_originals
def test_the_first_fault_of_a_spoilt_table_has_the_line_its_row_begins_on(tmp_path: Path) -> None:
    raw = (ORIGINALS / "xstest" / "xstest_v2_completions_mistralinstruct.dev.csv.gz").read_bytes()
    rows = list(csv.reader(io.StringIO(gzip.decompress(raw).decode(), newline="")))[:25]
    for place, some in spoilt_rows(rows, random.Random(31)):
        path = tmp_path / "xstest_v2_completions_fern.csv"
        begins = 1 + sum(text.count("\n") for text in map(_as_csv, some[:place]))
        path.write_text("".join(map(_as_csv, some)), newline="")
        assert_refused(path, "xstest", begins)


def _as_csv(row: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(row)
    return out.getvalue()


@needs_originals
def test_spoilt_prompts_are_refused_too(tmp_path: Path) -> None:
    Project.objects.create(slug="desk", name="Desk")
    records, chance = lines("gsm8k", "train.dev.jsonl.gz"), random.Random(37)
    for how in range(EACH):
        place = chance.randrange(len(records))
        path = file_of(tmp_path, *records)
        raw = path.read_bytes().splitlines()
        raw[place] = spoilt(records[place], {"question": [None, 7, 0.5, {}, [3]]}, (), chance, how)
        path.write_bytes(b"\n".join(raw))
        with pytest.raises(CommandError, match=rf"some.jsonl, line {place + 1}: "):
            call_command("import_prompts", path, "--project=desk", column="question")
    assert not Import.objects.exists()
