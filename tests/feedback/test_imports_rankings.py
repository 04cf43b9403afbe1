"""Rankings in our own lines: what was exported comes in and goes out the same; faults by line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedback import dialogues, slots
from feedback.errors import ImportRefused
from feedback.imports.taking_in import import_files
from feedback.invariants import violations
from feedback.models import Candidate, Comparison, Dialogue, Import, Project, Ranking
from feedback.rankings import dense
from tests import make
from tests.feedback.sources import ORIGINALS, OURS, file_of, needs_originals
from tests.feedback.spoiling import assert_each_is_refused
from tests.feedback.there_and_back import again, assert_the_same, lines_of, written

PROMPT = [{"role": "user", "content": "Name a tree."}]
pytestmark = [pytest.mark.django_db, pytest.mark.services, pytest.mark.usefixtures("own_data_folder")]


def take_in(path: Path, slug: str = "again", **options: Any):
    return import_files([path], file_format="rankings", slug=slug, **options)


def line(*rankings: dict[str, Any], **fields: Any) -> dict[str, Any]:
    replies = [{"turns": [{"role": "assistant", "content": text}]} for text in ("An oak.", "A rose.")]
    answers = list(rankings) or [{"annotator_id": "maria", "ranks": [1, 2]}]
    return {"prompt": PROMPT, "candidates": replies, "rankings": answers} | fields


def candidate(**fields: Any) -> dict[str, Any]:
    """A line whose second reply has other fields."""
    one = line()
    one["candidates"][1] |= fields
    return one


def ranking(**fields: Any) -> dict[str, Any]:
    return line({"annotator_id": "maria", "ranks": [1, 2]} | fields)


# There and back


def test_what_people_answered_comes_in_and_goes_out_the_same(tmp_path):
    slot = make.make_chat(make.make_project())
    first = slot.work_item.dialogue.comparisons.get()
    flags = {first.candidates.get(index=1).pk: ["wrong", "rude"]}
    make.make_ranking(slot, first, strength=3, seconds=2.5, flags=flags)
    later = make.answer_request(dialogues.send_message(slot=slot, text="And its leaf?", after_position=0))
    make.make_ranking(slot, later, ranks={}, all_bad=True)
    other = make.answer_request(dialogues.ask_for_new_candidates(slot=slot))
    make.make_ranking(slot, other, ranks=make.ranks_by_index(other, [2, 1, 1, 3]))
    shared = make.make_comparison(slot.work_item.project, text="What eats aphids?")
    item = make.make_rank_work(shared, wanted=2)
    for name, places in (("bob", [1, 2, 3, 4]), ("dora", [4, 1, 2, 3])):
        held = slots.next_slot(user=make.make_member(item.project, name), project=item.project, kind=item.kind)
        make.make_ranking(held, shared, ranks=make.ranks_by_index(shared, places))
    original = written("plant-desk")
    told = lines_of(original)
    assert sorted(len(one["rankings"]) for one in told) == [1, 1, 1, 2]
    assert len({one["dialogue_id"] for one in told}) == 2  # the chat's three questions are of one dialogue
    assert_the_same(original, again(original, tmp_path))
    assert list(violations()) == []


def test_what_a_reply_searched_and_found_leaves_and_comes_in_with_it(tmp_path):
    slot = make.make_rank_slot()
    reply = slot.work_item.comparison.candidates.all()[0]
    search = [{"role": "search_query", "content": "fern"}, {"role": "search_results", "content": "Twice a week."}]
    snippet = {"title": "Ferns", "source": "ferns.md", "text": "Twice a week."}
    reply.turns = [*search, *reply.turns]
    reply.evidence = {"query": "fern", "snippets": [snippet | {"passage": 7}]}
    reply.save()
    make.make_ranking(slot)
    first = written("plant-desk")
    (told,) = lines_of(first)
    one = next(each for each in told["candidates"] if len(each["turns"]) == 3)
    assert json.loads(one["meta"])["evidence"] == [snippet]
    assert_the_same(first, again(first, tmp_path))
    assert Candidate.objects.get(turns__0__role="search_query", request=None).query == "fern"


@pytest.mark.parametrize("file_format", ["hh-rlhf", "open-assistant"])
def test_what_was_imported_comes_in_and_goes_out_the_same(tmp_path, file_format):
    path = OURS / ("hh_rlhf.jsonl" if file_format == "hh-rlhf" else "open_assistant_trees.jsonl")
    import_files([path], file_format=file_format, slug="desk")
    first = written("desk")
    second = again(first, tmp_path)
    assert_the_same(first, second)
    assert_the_same(second, again(second, tmp_path, "third"))
    assert set(Ranking.objects.values_list("annotator_key", flat=True)) == {file_format}


@needs_originals
def test_three_peoples_rankings_of_real_pairs_come_in_and_go_out_the_same(tmp_path):
    path = ORIGINALS / "pandalm" / "testset-v1.dev.json.gz"
    import_files([path], file_format="pandalm", slug="desk")
    first = written("desk")
    assert (first.counts["total"]["comparisons"], first.counts["total"]["rankings"]) == (739, 2217)
    assert_the_same(first, again(first, tmp_path))
    assert list(violations()) == []


@needs_originals
def test_real_trees_come_in_and_go_out_the_same(tmp_path):
    path = ORIGINALS / "open-assistant" / "en_100_tree.dev.jsonl.gz"
    import_files([path], file_format="open-assistant", slug="desk")
    first = written("desk")
    assert first.counts["total"]["comparisons"] == 150
    assert_the_same(first, again(first, tmp_path))


def test_comparisons_of_exactly_the_same_content_stay_apart(tmp_path):
    twins = [ranking(seconds=1.0), ranking(seconds=2.0), ranking(ranks=[2, 1])]
    take_in(file_of(tmp_path, *twins), "desk")
    first = written("desk")
    assert len({one["comparison_id"] for one in lines_of(first)}) == 3
    assert_the_same(first, again(first, tmp_path))


RANKS = st.lists(st.none() | st.integers(1, 3), min_size=2, max_size=2).map(
    lambda ranks: [
        dense({at: rank for at, rank in enumerate(ranks) if rank is not None}).get(at) for at in range(len(ranks))
    ]
)
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=8)
ANSWERS = st.fixed_dictionaries(
    {"ranks": RANKS},
    optional={
        "all_bad": st.booleans(),
        "strength": st.none() | st.integers(1, 4),
        "flags": st.lists(st.lists(WORDS, max_size=2), min_size=2, max_size=2),
        "shown_order": st.permutations([0, 1]),
        "seconds": st.none() | st.floats(0, 1e6),
        "late": st.booleans(),
        "revision": st.integers(1, 9),
        "created_at": WORDS,
    },
)
MADE = st.fixed_dictionaries(
    {},
    optional={
        "model": WORDS,
        "model_hash": WORDS,
        "mean_logprob": st.none() | st.floats(-1e6, 0),
        "token_count": st.none() | st.integers(0, 9999),
        "seed": st.none() | st.integers(-(2**63), 2**63 - 1),
        "draw": st.integers(0, 9),
        "meta": st.dictionaries(WORDS, WORDS | st.integers(-99, 99), max_size=2),
    },
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_line_comes_in_and_goes_out_the_same(tmp_path, data):
    count = Project.objects.count()
    some = data.draw(
        st.lists(st.tuples(st.lists(ANSWERS, min_size=1, max_size=3), MADE, WORDS), min_size=1, max_size=3)
    )
    lines = []
    for answers, made, text in some:
        one = line(*({"annotator_id": f"someone {at}"} | answer for at, answer in enumerate(answers)))
        one["candidates"][0] |= made
        one["prompt"] = [{"role": "user", "content": f"{text}?"}]
        lines.append(one)
    take_in(file_of(tmp_path, *lines), f"one-{count}")
    first = written(f"one-{count}")
    second = again(first, tmp_path, f"two-{count}")
    assert_the_same(first, second)


# What a field becomes


def test_a_line_of_somebody_else_needs_no_more_than_prompt_replies_and_ranks(tmp_path):
    (report,) = take_in(
        file_of(tmp_path, line({"annotator_id": "maria", "ranks": [2, 1]}, {"annotator_id": "b", "ranks": [1, None]}))
    )
    comparison = Comparison.objects.get()
    given = {one.annotator_key: sorted(one.ranks().values()) for one in comparison.rankings.all()}
    assert given == {"maria": [1, 2], "b": [1]}
    assert report.notes == {"comparisons on which the annotators differ, all kept": 1}
    assert list(violations()) == []


def test_how_a_reply_was_made_comes_back_into_its_columns(tmp_path):
    fields = {
        "model": "fern-2", "seed": -7, "token_count": 12, "mean_logprob": -1.5, "draw": 2, "finish_reason": "stop",
        "model_hash": "ab", "meta": {"sampling": {"top_k": 5}, "prompt_hash": "cd", "source": {"x": 1}, "batch": 3},
    }  # fmt: skip
    take_in(file_of(tmp_path, candidate(**fields)))
    reply = Candidate.objects.get(index=1)
    assert (reply.seed, reply.token_count, reply.mean_logprob, reply.draw) == (-7, 12, -1.5, 2)
    assert (reply.finish_reason, reply.model_hash, reply.prompt_hash) == ("stop", "ab", "cd")
    assert reply.sampling == {"top_k": 5}
    assert reply.source == {"model_name": "fern-2", "source": {"x": 1}, "meta": {"batch": 3}}


def test_the_order_shown_names_candidates(tmp_path):
    take_in(file_of(tmp_path, ranking(shown_order=[1, 0], flags=[[], ["rude"]])))
    given = Ranking.objects.get()
    first, second = Candidate.objects.order_by("index")
    assert given.shown_order == [second.pk, first.pk]
    assert given.entries.get(candidate=second).flags == ["rude"]


def test_the_side_of_the_split_is_taken_over_and_an_opening_lies_on_one(tmp_path):
    take_in(file_of(tmp_path, line(split="test")))
    assert Dialogue.objects.get().prompt.split == "test"
    with pytest.raises(ImportRefused, match="line 2: field split is train, and the same opening lies in test before"):
        take_in(file_of(tmp_path, line(split="test"), line(split="train"), name="torn.jsonl"))


def test_the_names_of_strangers_are_hidden_in_exports(tmp_path):
    take_in(file_of(tmp_path, line()))
    (out,) = lines_of(written("again"))
    assert out["rankings"][0]["annotator_id"].startswith("annotator-")


def test_a_dry_run_changes_nothing_and_the_same_file_twice_is_noticed(tmp_path):
    path = file_of(tmp_path, line())
    take_in(path, dry_run=True)
    assert not Project.objects.exists()
    take_in(path)
    (report,) = take_in(path)
    assert "imported already" in report.known
    assert Import.objects.count() == 1


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (line(prompt=[]), "field prompt should hold what a user said"),
        (line(prompt="x"), "field prompt should be a list"),
        (line(candidates=[]), "field candidates should hold 1 to 1,000 replies, not 0"),
        (line(rankings=[]), "field rankings should hold at least one"),
        (line(why=1), "field 'why' is not known here"),
        (line(split="dev"), "field split should be one of train, validation, test"),
        (candidate(turns=[]), r"field candidates\[1\].turns is empty"),
        (candidate(turns=[{"role": "bot", "content": ""}]), r"field candidates\[1\].turns\[0\].role should be one of"),
        (candidate(seed=2**63), r"field candidates\[1\].seed should be a whole number of 64 bits"),
        (candidate(token_count=-1), r"field candidates\[1\].token_count should be a whole number from 0"),
        (candidate(mean_logprob=10**400), r"field candidates\[1\].mean_logprob should be a number"),
        (candidate(finish_reason="x" * 21), r"field candidates\[1\].finish_reason should have at most 20"),
        (candidate(meta="{"), r"field candidates\[1\].meta: column 2"),
        (candidate(meta={"sampling": 3}), r"field candidates\[1\].meta.sampling should be an object, not 3"),
        (ranking(ranks=[1]), r"field rankings\[0\].ranks should hold a rank from 1, or null, for each of the 2"),
        (ranking(ranks=[1, 0]), "ranks should hold a rank from 1"),
        (ranking(ranks=[1, True]), "ranks should hold a rank from 1"),
        (ranking(ranks=[1, 3]), "ranks leaves a place out"),
        (ranking(strength=5), "strength should be 1 to 4, or null"),
        (ranking(flags=[[]]), "flags should hold a list of at most 50 words for each of the 2 candidates"),
        (ranking(shown_order=[0, 0]), "shown_order should hold places of candidates"),
        (ranking(shown_order=[0, 2]), "shown_order should hold places of candidates"),
        (ranking(seconds=-1), "seconds should be a number from 0"),
        (ranking(annotator_id="u5"), "which is what accounts of this Nestbox are called"),
        (ranking(annotator_id=""), "annotator_id is missing"),
        (line(*[{"annotator_id": "a", "ranks": [1, 2]}] * 2), "annotator 'a' answers twice"),
    ],
)
def test_a_fault_is_named_with_line_and_field(tmp_path, bad, told):
    with pytest.raises(ImportRefused, match=f"line 2: .*{told}"):
        take_in(file_of(tmp_path, line(), bad))
    assert not Project.objects.exists()


@needs_originals
def test_spoilt_lines_of_a_real_export_are_each_refused_by_the_right_line(tmp_path):
    path = ORIGINALS / "llmbar" / "Natural" / "dataset.dev.json.gz"
    import_files([path], file_format="llmbar", slug="desk")
    lines = lines_of(written("desk"))[:20]
    wrong = {
        "prompt": [None, "x", {}, [], [3]],
        "candidates": [None, [], [3], [{}]],
        "rankings": [None, [], [3], [{"annotator_id": "a", "ranks": [1]}]],
    }
    assert_each_is_refused(lines, tmp_path, file_format="rankings", wrong=wrong, is_list=False)
