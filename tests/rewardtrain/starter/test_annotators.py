"""Simulated annotators and the measurement of replies."""

import random

import pytest

from rewardtrain.starter import measure
from rewardtrain.starter.annotators import Annotator, ranks_of
from rewardtrain.starter.corpus import write_reply
from rewardtrain.starter.openings import openings
from rewardtrain.starter.questions import situation_of

ASKED = [{"role": "user", "content": "How often should I water my monstera?"}]
GOOD, FAIR, POOR = "Water your monstera once a week.", "Water it once a month.", "You are an idiot."


def comparisons(count: int, seed: int = 0) -> list[tuple[list[dict[str, str]], list[str]]]:
    """Openings with four replies as the corpus writes them."""
    rng = random.Random(seed)
    chosen = rng.sample(openings(), count)
    dialogues = [[{"role": "user", "content": opening.text}] for opening in chosen]
    return [(turns, [write_reply(situation_of(turns), rng) for _ in range(4)]) for turns in dialogues]


def test_close_replies_tie_with_the_best_of_them():
    assert ranks_of([1.0, 0.9, 0.75, -1.0], tie_within=0.2) == (1, 1, 2, 3)
    assert ranks_of([0.0], tie_within=0.2) == (1,)


def test_an_annotator_errs_in_about_one_judgement_of_seven():
    annotator = Annotator(1)
    judgements = [(turns, replies, annotator.judge(turns, replies).ranks) for turns, replies in comparisons(600)]
    agreement = measure.ceiling(judgements)
    assert agreement is not None
    assert 1 / 8.5 < 1 - agreement < 1 / 6


def test_an_annotator_without_noise_has_the_taste_of_the_oracle():
    careful = Annotator(1, noise=0.0)
    judgements = [(turns, replies, careful.judge(turns, replies).ranks) for turns, replies in comparisons(50)]
    assert measure.ceiling(judgements) == 1.0
    assert careful.judge(ASKED, [FAIR, POOR, GOOD]).ranks == (2, 3, 1)


def test_the_same_seed_gives_the_same_answers_and_another_seed_others():
    answers = [[Annotator(seed).judge(turns, replies) for turns, replies in comparisons(20)] for seed in (1, 1, 2)]
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]


def test_replies_that_all_break_a_rule_are_all_bad():
    judgement = Annotator(1, noise=0.0).judge(ASKED, [POOR, "I guarantee it."])
    assert judgement.all_bad
    assert judgement.strength is None


def test_strength_says_how_far_the_best_is_ahead():
    careful = Annotator(1, noise=0.0)
    assert careful.judge(ASKED, [GOOD, POOR]).strength == 4
    assert careful.judge(ASKED, [GOOD, "Water it once a week."]).strength == 1
    assert careful.judge(ASKED, [GOOD, "Your monstera wants to be watered once a week."]).strength is None
    assert careful.judge(ASKED, [GOOD]).strength is None


def test_breaches_are_mostly_flagged_and_good_replies_rarely():
    annotator = Annotator(5)
    flags = [annotator.judge(ASKED, [GOOD, POOR]).flags for _ in range(300)]
    assert sum(1 in one for one in flags) > 230
    assert sum(0 in one for one in flags) < 20
    assert {name for one in flags for names in one.values() for name in names} == {"rule"}


def test_nothing_to_judge_is_refused():
    with pytest.raises(ValueError, match="no reply"):
        Annotator(1).judge(ASKED, [])


def test_an_annotator_goes_on_for_a_few_turns_with_something_of_the_desk():
    annotator = Annotator(2)
    texts = {annotator.follow_up([*ASKED, {"role": "assistant", "content": GOOD}]) for _ in range(40)}
    assert len(texts) > 15
    assert not annotator.goes_on(4)
    assert 50 < sum(annotator.goes_on(1) for _ in range(200)) < 150


def test_figures_of_replies_worked_by_hand():
    pairs = [("Tell me a joke.", "I only know about plants."), (ASKED, GOOD), (ASKED, GOOD), (ASKED, f"{POOR} Oh no")]
    found = measure.figures(pairs, count_tokens=lambda reply: len(reply.split()))
    assert found.as_dict() == {
        "violation_rate": 0.25,
        "fluent_rate": 0.75,
        "distinct_rate": 0.75,
        "mean_tokens": (5 + 6 + 6 + 6) / 4,
    }
    with pytest.raises(ValueError, match="no reply"):
        measure.figures([])


def test_word_count_counts_words_and_marks():
    assert measure.word_count("Sure. Water it, please!") == 7


def test_the_preferred_policy_is_told_apart_from_ties():
    openings_ = [ASKED] * 4
    found = measure.preference(openings_, before=[POOR, FAIR, GOOD, GOOD], after=[GOOD, GOOD, GOOD, FAIR])
    assert found.win_rate == pytest.approx(2 / 3)
    assert found.tie_rate == pytest.approx(1 / 4)
    assert measure.preference([ASKED], [GOOD], [GOOD]).win_rate is None
    with pytest.raises(ValueError, match="as many replies"):
        measure.preference([ASKED], [], [GOOD])


def test_ties_among_replies_to_one_prompt_are_counted_by_pairs():
    assert measure.tie_rate([ASKED], [[GOOD, GOOD, POOR]]) == pytest.approx(1 / 3)
    assert measure.tie_rate([ASKED], [[GOOD]]) is None


def test_pairs_that_either_party_ties_are_not_judged():
    replies = [GOOD, FAIR, GOOD]
    assert measure.judged_pairs(ASKED, replies, [1, 2, 1]) == [(0, 1, True), (2, 1, True)]
    assert measure.judged_pairs(ASKED, replies, [2, 1, None]) == [(1, 0, False)]
    assert measure.judged_pairs(ASKED, replies, [1, 1, 2]) == [(1, 2, False)]
    assert measure.ceiling([(ASKED, replies, [1, 1, 2]), (ASKED, [GOOD, POOR], [1, 2])]) == 0.5
    assert measure.ceiling([]) is None


def test_the_oracle_seldom_ties_replies_to_one_prompt():
    chosen = comparisons(300)
    found = measure.tie_rate([turns for turns, _ in chosen], [replies for _, replies in chosen])
    assert found is not None
    assert found < 0.3
