"""PandaLM: three people's rankings of one pair, each kept; their agreement is that of the file."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from feedback.agreement import krippendorff_alpha, pair_orders, pairwise_kappa
from feedback.errors import ImportRefused
from feedback.imports.pandalm import ANNOTATORS
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import Comparison, Dialogue, Import, Project, Ranking
from tests.feedback.sources import ORIGINALS, file_of, needs_originals
from tests.feedback.spoiling import NOT_TEXT, assert_each_is_refused

ORIGINAL = ORIGINALS / "pandalm" / "testset-v1.dev.json.gz"
RECORD = {
    "idx": 3,
    "motivation_app": "Notes",
    "cmp_key": "fern-7b_moss-6.9b",
    "instruction": "Say it shorter.",
    "input": "The plant is in need of water.",
    "response1": "Water the plant.",
    "response2": "It needs water.",
    "annotator1": 2,
    "annotator2": 1,
    "annotator3": 0,
}
pytestmark = [pytest.mark.django_db, pytest.mark.services]


def take_in(path: Path, **options: Any):
    return import_files([path], file_format="pandalm", slug="panda", **options)


def written(folder: Path, *records: dict[str, Any]) -> Path:
    return file_of(folder, *records, name="some.json", as_list=True)


def originals() -> list[dict[str, Any]]:
    return json.loads(gzip.decompress(ORIGINAL.read_bytes()))


def again() -> Iterator[dict[str, Any]]:
    """The records of the imported file, from the database alone."""
    for comparison in Comparison.objects.order_by("pk"):
        dialogue = comparison.dialogue
        (turn,) = dialogue.messages()
        begins = dialogue.source["input_begins"]
        replies = {one.source["field"]: one.source.get("value", one.text) for one in comparison.candidates.all()}
        yield (
            dialogue.source["fields"]
            | replies
            | labels(comparison)
            | {
                "instruction": turn["content"] if begins is None else turn["content"][: max(begins - 2, 0)],
                "input": "" if begins is None else turn["content"][begins:],
            }
        )


def labels(comparison: Comparison) -> dict[str, int]:
    return {one.annotator_key: {(1, 2): 1, (2, 1): 2, (1, 1): 0}[places(one)] for one in comparison.rankings.all()}


def places(ranking: Ranking) -> tuple[int, ...]:
    return tuple(rank for _, rank in sorted(ranking.ranks().items()))


def test_a_record_becomes_two_replies_and_three_rankings(tmp_path):
    (report,) = take_in(written(tmp_path, RECORD))
    comparison = Comparison.objects.get()
    assert comparison.source_key == comparison.dialogue.source_key == "3"
    assert comparison.dialogue.messages() == [
        {"role": "user", "content": "Say it shorter.\n\nThe plant is in need of water."}
    ]
    assert [(one.text, one.source["model_name"]) for one in comparison.candidates.all()] == [
        ("Water the plant.", "fern-7b"), ("It needs water.", "moss-6.9b"),
    ]  # fmt: skip
    given = {one.annotator_key: places(one) for one in comparison.rankings.all()}
    assert given == {"annotator1": (2, 1), "annotator2": (1, 2), "annotator3": (1, 1)}
    assert {one.source_import for one in Ranking.objects.all()} == {Import.objects.get()}
    assert (report.counts["comparisons"], report.counts["rankings"], report.counts["places"]) == (1, 3, 6)
    assert report.notes == {"comparisons on which the annotators differ, all kept": 1, "rankings that tie": 1}
    assert list(violations()) == []


def test_one_instruction_with_two_inputs_lies_on_one_side_of_the_split(tmp_path):
    take_in(written(tmp_path, RECORD, RECORD | {"input": ""}, RECORD | {"input": "x"}))
    assert Dialogue.objects.values("prompt").distinct().count() == 3
    assert Dialogue.objects.values("prompt__group").distinct().count() == 1


def test_a_truth_value_in_place_of_a_reply_is_its_word_again(tmp_path):
    take_in(written(tmp_path, RECORD | {"response1": False}))
    reply = Comparison.objects.get().candidates.get(index=0)
    assert (reply.text, reply.source["value"]) == ("false", False)


def test_lines_are_read_as_well_as_a_list(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text(json.dumps(RECORD) + "\n")
    (report,) = take_in(path)
    assert (report.unit, report.counts["lines"]) == ("line", 1)


def test_a_dry_run_changes_nothing_and_the_same_file_twice_is_noticed(tmp_path):
    path = written(tmp_path, RECORD)
    take_in(path, dry_run=True)
    assert not Project.objects.exists()
    take_in(path)
    (report,) = take_in(path)
    assert "imported already" in report.known
    assert Ranking.objects.count() == 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"annotator2": 3}, "field annotator2 should be 1 or 2, the better reply, or 0 for neither, not 3"),
        ({"annotator2": True}, "field annotator2 should be 1 or 2"),
        ({"idx": "3"}, "field idx should be a whole number from 0, not '3'. Is this PandaLM"),
        ({"instruction": " ", "input": ""}, "fields instruction and input are both empty"),
        ({"response2": 4}, "field response2 should be text, not 4"),
        ({"input": None}, "field input should be text, not None"),
    ],
)
def test_a_fault_is_named_by_record_and_field(tmp_path, change, told):
    with pytest.raises(ImportRefused, match=f"record 2: {told}"):
        take_in(written(tmp_path, RECORD, RECORD | change))


# The original file


@needs_originals
def test_the_original_file_comes_in_whole():
    (report,) = take_in(ORIGINAL)
    counts = report.counts
    assert (counts["lines"], counts["comparisons"], counts["candidates"], counts["rankings"]) == (739, 739, 1478, 2217)
    assert report.notes["rankings that tie"] == sum(one[name] == 0 for one in originals() for name in ANNOTATORS) == 224
    assert report.notes["replies that are a truth value in the file, kept as its word"] == 6
    assert list(again()) == originals()
    assert list(violations()) == []


@needs_originals
def test_agreement_from_the_rows_is_that_of_the_file():
    take_in(ORIGINAL)
    rankings = Ranking.objects.prefetch_related("entries").order_by("comparison", "annotator_key")
    answers: dict[int, dict[str, dict[int, int]]] = {}
    for one in rankings:
        answers.setdefault(one.comparison_id, {})[one.annotator_key] = one.ranks()
    units = pair_orders(answers.values())
    given = [[record[name] for name in ANNOTATORS] for record in originals()]
    assert len(units) == len(given) == 739
    for (names, kappa), (one, other) in zip(pairwise_kappa(units).items(), combinations(range(3), 2), strict=True):
        assert names == (ANNOTATORS[one], ANNOTATORS[other])
        assert kappa == pytest.approx(kappa_by_table([(row[one], row[other]) for row in given]), abs=1e-9)
    for is_ordered in (True, False):
        alpha = krippendorff_alpha([list(unit.values()) for unit in units], is_ordered=is_ordered)
        assert alpha == pytest.approx(alpha_by_coincidences(given, is_ordered=is_ordered), abs=1e-9)


def kappa_by_table(pairs: list[tuple[int, int]]) -> float:
    """Cohen's kappa by its table of shares."""
    labels = (1, 0, 2)
    table = {(a, b): pairs.count((a, b)) / len(pairs) for a in labels for b in labels}
    observed = sum(table[a, a] for a in labels)
    expected = sum(sum(table[a, b] for b in labels) * sum(table[b, a] for b in labels) for a in labels)
    return (observed - expected) / (1 - expected)


def alpha_by_coincidences(rows: list[list[int]], *, is_ordered: bool) -> float:
    """Krippendorff's alpha by his own steps: the matrix of coincidences, then the metric. A tie lies between."""
    order = (1, 0, 2)
    matrix: Counter[tuple[int, int]] = Counter()
    for row in rows:
        for i, a in enumerate(row):
            for j, b in enumerate(row):
                if i != j:
                    matrix[a, b] += 1 / (len(row) - 1)
    margin = {c: sum(matrix[c, k] for k in order) for c in order}
    n = sum(margin.values())

    def metric(c: int, k: int) -> float:
        if not is_ordered:
            return float(c != k)
        low, high = sorted((order.index(c), order.index(k)))
        return (sum(margin[g] for g in order[low : high + 1]) - (margin[c] + margin[k]) / 2) ** 2

    observed = sum(matrix[c, k] * metric(c, k) for c in order for k in order) / n
    expected = sum(margin[c] * margin[k] * metric(c, k) for c in order for k in order) / (n * (n - 1))
    return 1 - observed / expected


@needs_originals
@pytest.mark.parametrize("is_list", [True, False])
def test_spoilt_originals_are_each_refused_by_the_right_record(tmp_path, is_list):
    bad_label = [None, 3, -1, "1", 0.5, True]
    wrong = dict.fromkeys(("instruction", "input", "response1", "response2"), NOT_TEXT)
    wrong |= dict.fromkeys(ANNOTATORS, bad_label) | {"idx": [None, "7", -1, 0.5]}
    records = [one for one in originals()[:20] if isinstance(one["response1"], str)]
    assert_each_is_refused(records, tmp_path, file_format="pandalm", wrong=wrong, is_list=is_list)
