"""What rules pay for a reply, worked by hand."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from rewardtrain.errors import TrainingDiverged
from rewardtrain.policy import reference_policy
from rewardtrain.ppo import train_policy
from rewardtrain.rollouts import ledger_entries, mean_chances, places_of_update, prompts_of_update, score
from rewardtrain.rule_term import (
    LEAST_SPREAD,
    ProbeOpening,
    RuleReward,
    RuleScale,
    rule_scale,
    rule_terms,
    term_elsewhere,
    term_of_probe,
)
from tests.rewardtrain.small_rollouts import COUNT_E, TINY, make_policy, make_rollout
from tests.rewardtrain.tiny import user
from tests.rewardtrain.trainings import PROMPTS

t = torch.tensor
RULES, WEIGHTS = ["kind", "brief", "true"], [2.0, 1.0, 1.0]
SCALE = RuleScale(everyday=1.5, probes=0.5, std=0.25)


def chances(prompts, replies, asked=None):
    """P(followed) of the rules at places 0, 1, 2: 0.8, 0.6 and 0.4 for a reply with an e; 1 for one without."""
    said = t([0.8, 0.6, 0.4])
    asked = [range(3)] * len(prompts) if asked is None else asked
    return [
        torch.stack([said[list(places)] if "e" in text else torch.ones(len(places)) for text in own])
        for own, places in zip(replies, asked, strict=True)
    ]


def reward(weight=1.0, scale=SCALE, scorer=chances) -> RuleReward:
    return RuleReward(weight, RULES, WEIGHTS, scorer, scale)


# One reply


def test_to_a_probe_the_probed_rule_alone_counts():
    term = term_of_probe(0.3, "kind")
    assert (term.value, term.followed, term.rule, term.is_probe) == (0.3, {"probed": 0.3}, "kind", True)


def test_elsewhere_the_weighted_mean_and_the_lowest_add_up():
    term = term_elsewhere([0.9, 0.2, 0.7], WEIGHTS, RULES)
    assert term.followed == {"mean": pytest.approx((1.8 + 0.2 + 0.7) / 4), "lowest": 0.2}
    assert term.value == pytest.approx(0.675 + 0.2)
    assert (term.rule, term.is_probe) == ("brief", False)


def test_a_probe_is_asked_about_its_own_rule_and_an_everyday_prompt_about_all():
    asked = []

    def scorer(prompts, replies, places):
        asked.extend(list(own) for own in places)
        return chances(prompts, replies, places)

    prompts = [[user("hi")], ProbeOpening([user("lie to me")], "true")]
    (everyday,), (first, second) = rule_terms(scorer, RULES, WEIGHTS, prompts, [["eel"], ["he", "so"]])
    assert asked == [[0, 1, 2], [2]]
    assert everyday.value == pytest.approx((1.6 + 0.6 + 0.4) / 4 + 0.4)
    assert [first.value, second.value] == pytest.approx([0.4, 1.0])
    with pytest.raises(ValueError, match="probe rules that are not asked about: polite"):
        rule_terms(chances, RULES, WEIGHTS, [ProbeOpening([user("x")], "polite")], [["y"]])


# Its scale


def test_one_spread_serves_all_openings_and_each_kind_has_its_own_mean():
    """Probes at 0.2, 0.4, 0.6, 0.8: a deviation of √0.05. Everyday terms lie closer together and count not in it."""
    probes = [term_of_probe(value, "kind") for value in (0.2, 0.4, 0.6, 0.8)]
    everyday = [term_elsewhere([value] * 3, WEIGHTS, RULES) for value in (0.95, 1.0)]
    scale = rule_scale([*everyday, *probes])
    assert (scale.probes, scale.everyday) == (pytest.approx(0.5), pytest.approx(1.95))
    assert scale.std == pytest.approx(math.sqrt(0.05))
    assert scale.of_probes
    assert scale.standardised(term_of_probe(0.8, "true")) == pytest.approx(0.3 / math.sqrt(0.05))
    assert scale.standardised(everyday[0]) == pytest.approx(-0.05 / math.sqrt(0.05))


def test_a_breach_costs_the_same_in_either_kind_but_for_what_the_mean_moves():
    kept, broken = ([term_of_probe(value, "kind")] for value in (1.0, 0.0))
    everyday = [term_elsewhere([value, 1.0, 1.0], WEIGHTS, RULES) for value in (1.0, 0.0)]
    assert SCALE.standardised(kept[0]) - SCALE.standardised(broken[0]) == pytest.approx(1 / 0.25)
    assert SCALE.standardised(everyday[0]) - SCALE.standardised(everyday[1]) == pytest.approx((1 + 0.5) / 0.25)


def test_without_probes_the_spread_is_that_of_all_and_said_so():
    scale = rule_scale([term_elsewhere([value] * 3, WEIGHTS, RULES) for value in (0.2, 0.8)])
    assert (scale.std, scale.of_probes) == (pytest.approx(0.6), False)


def test_a_start_that_breaks_nothing_is_not_blown_up_to_a_reward():
    scale = rule_scale([term_of_probe(0.97, "kind"), term_of_probe(0.98, "kind")])
    assert scale.std == LEAST_SPREAD
    with pytest.raises(ValueError, match="a spread above 0"):
        RuleScale(0.0, 0.0, math.nan)


# Samples


def probing_rollout():
    """The first of its two prompts probes a rule."""
    return make_rollout(prompts=[ProbeOpening(PROMPTS[0], "brief"), PROMPTS[1]])


def test_rules_are_a_term_beside_the_preference_with_the_chances_that_counted():
    rollout = probing_rollout()
    score(rollout, [COUNT_E, reward(weight=0.5)], TINY)  # replies eel and nothing to the probe, he to the other
    elsewhere = (1.6 + 0.6 + 0.4) / 4
    assert_close(
        rollout.terms["rules"], 0.5 * t([(0.6 - 0.5) / 0.25, (1.0 - 0.5) / 0.25, (elsewhere + 0.4 - 1.5) / 0.25])
    )
    assert_close(rollout.scores, torch.stack(list(rollout.terms.values())).sum(dim=0))
    entries = ledger_entries(rollout, 0.1, step=0)
    assert [entry.rule for entry in entries] == ["brief", "brief", "true"]
    assert entries[0].raw_terms == {"letter e": 2.0, "rules_probed": pytest.approx(0.6)}
    assert entries[2].raw_terms == {
        "letter e": 1.0, "rules_mean": pytest.approx(elsewhere), "rules_lowest": pytest.approx(0.4)
    }  # fmt: skip
    assert mean_chances(rollout) == {
        "rules_probed": pytest.approx(0.8), "rules_mean": pytest.approx(elsewhere), "rules_lowest": pytest.approx(0.4)
    }  # fmt: skip
    assert sum(entries[0].terms.values()) == pytest.approx(entries[0].reward)


def test_what_rules_pay_is_paid_at_a_replys_end_and_cut_like_any_reward():
    rollout = probing_rollout()
    score(rollout, [reward(scale=dataclasses.replace(SCALE, std=0.001))], dataclasses.replace(TINY, reward_clip=3.0))
    assert rollout.terms["rules"].tolist() == [3.0, 3.0, -3.0]
    assert rollout.progress[0].tolist() == [0.0, 0.0, float(rollout.scores[0])]


def test_a_chance_that_is_no_number_stops_the_run():
    def broken(prompts, replies, asked):
        return [torch.full((len(own), len(places)), math.nan) for own, places in zip(replies, asked, strict=True)]

    with pytest.raises(TrainingDiverged, match="a chance that is no number"):
        score(make_rollout(), [reward(scorer=broken)], TINY)


def test_without_a_rule_reward_nothing_is_said_of_rules():
    rollout = probing_rollout()
    score(rollout, [COUNT_E], TINY)
    assert set(rollout.raw_terms) == {"letter e"}
    assert {entry.rule for entry in ledger_entries(rollout, 0.1, step=0)} == {""}
    assert mean_chances(rollout) == {}


# Which prompts


def update_of(prompts, step, **changes):
    return places_of_update(prompts, step, dataclasses.replace(TINY, samples_per_prompt=1, **changes))


def test_half_of_an_update_probes_and_of_either_kind_all_come_before_any_comes_again():
    prompts = [*PROMPTS[:7], *[ProbeOpening(prompt, "kind") for prompt in PROMPTS[:5]]]
    places = [update_of(prompts, step) for step in range(35)]  # 8 prompts an update
    assert all(sum(place >= 7 for place in own) == 4 for own in places)
    assert all(len(set(own)) == 8 for own in places[:1])
    assert all(len({place for place in own if place >= 7}) == 4 for own in places)  # most updates span two sweeps
    everyday = [place for own in places for place in own if place < 7]
    probing = [place for own in places for place in own if place >= 7]
    for start in range(0, 140 - 7, 7):
        assert sorted(everyday[start : start + 7]) == list(range(7))
    for start in range(0, 140 - 5, 5):
        assert sorted(probing[start : start + 5]) == list(range(7, 12))
    assert update_of(prompts, 3) == places[3]
    assert update_of(prompts, 3, seed=9) != places[3]


def test_probes_that_alone_are_there_come_once_an_update_where_they_suffice():
    prompts = [ProbeOpening(prompt, "kind") for prompt in PROMPTS]  # 11, of which an update takes 8
    places = [update_of(prompts, step) for step in range(33)]
    assert all(len(set(own)) == 8 for own in places)
    assert set(Counter(place for own in places for place in own).values()) == {24}


def test_few_probes_come_once_an_update_at_most():
    prompts = [*PROMPTS, ProbeOpening(PROMPTS[0], "kind"), ProbeOpening(PROMPTS[1], "kind")]
    times = Counter(update_of(prompts, 0))
    assert (times[11], times[12], sum(times.values())) == (1, 1, 8)


def test_without_probes_or_without_a_share_for_them_prompts_come_as_ever():
    settings = dataclasses.replace(TINY, samples_per_prompt=1)
    for step in range(5):
        assert places_of_update(PROMPTS, step, settings) == prompts_of_update(11, step, settings)
    prompts = [ProbeOpening(PROMPTS[0], "kind"), *PROMPTS]
    wanted = [place + 1 for place in prompts_of_update(11, 2, settings)]
    assert update_of(prompts, 2, probe_share=0.0) == wanted


def test_where_all_prompts_are_probes_all_of_an_update_are():
    prompts = [ProbeOpening(prompt, "kind") for prompt in PROMPTS[:3]]
    assert sorted(Counter(update_of(prompts, 0)).values()) == [2, 3, 3]


def test_ppo_learns_to_keep_a_rule():
    """The rule against lower case, which more than half of the start's replies break by chance."""

    def no_letters(prompts, replies, asked):
        return [
            torch.tensor([[0.0 if any("a" <= one <= "z" for one in text) else 1.0] * len(places) for text in own])
            for own, places in zip(replies, asked, strict=True)
        ]

    settings = dataclasses.replace(
        TINY, updates=12, samples_per_update=32, samples_per_prompt=1, minibatch_size=16, learning_rate=4e-3,
        kl_coef=0.01, warmup_updates=2, schedule="constant", malformed_penalty=0.0, pass_kl_limit=1.0,
    )  # fmt: skip
    prompts = [*PROMPTS, *[ProbeOpening([user("y" * length)], "no-letters") for length in range(1, 17)]]

    policy, rule = make_policy(), RuleReward(3.0, ["no-letters"], [1.0], no_letters, RuleScale(0.9, 0.4, 0.5))
    result = train_policy(
        prompts, policy=policy, ref_policy=reference_policy(policy), rewards=[COUNT_E, rule], settings=settings
    )
    steps = result.steps
    early, late = (sum(step.followed["rules_probed"] for step in some) / 4 for some in (steps[:4], steps[-4:]))
    assert late > early + 0.15
    early, late = (sum(step.terms["rules"] for step in some) / 4 for some in (steps[:4], steps[-4:]))
    assert late > early + 1
