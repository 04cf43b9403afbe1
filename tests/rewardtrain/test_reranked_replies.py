"""Several draws of each prompt, scored and chosen from: with tiny networks, and with scorers that can be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from rewardtrain.hyperparameters import RewardModelSettings, RuleModelSettings, SamplingSettings
from rewardtrain.policy import Policy
from rewardtrain.reranked_replies import draw_reranked, draw_seed, rule_scorer_of, score_draws, with_reply
from rewardtrain.reward_model import RewardModel
from rewardtrain.rule_model import RuleModel
from rewardtrain.sampling import sample_replies
from tests.rewardtrain import tiny

PROMPTS = [[tiny.user(text)] for text in ("hi", "a rather longer question than the first")]
SAMPLING = SamplingSettings(max_new_tokens=6)
RULES = ["No a!", "No b!"]


def longest_first(prompts: Sequence[Any], replies: Sequence[Sequence[str]]) -> list[list[float]]:
    return [[float(len(reply.encode())) for reply in own] for own in replies]


def first_byte(dialogues: Sequence[Any], rules: Sequence[Sequence[str]]) -> list[list[float]]:
    """Rule i is followed the surer the lower the reply's first byte; another number for each rule."""
    replies = [dialogue[-1]["content"].encode() or b"\0" for dialogue in dialogues]
    return [
        [-0.01 * (place + 1) * reply[0] for place in range(len(own))] for reply, own in zip(replies, rules, strict=True)
    ]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(tiny.make_llama(), tiny.make_tokenizer()).eval()


def draw(policy: Policy, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "scorer": longest_first, "rule_scorer": None, "rules_of_prompt": [RULES, RULES], "n": 4,
        "sampling": SAMPLING, "seeds": [11, 12],
    }  # fmt: skip
    return draw_reranked(policy, PROMPTS, **values | changes)


def test_the_best_of_the_draws_is_chosen_and_the_others_are_told(policy: Policy) -> None:
    for reply in draw(policy):
        lengths = [len(one.reply.text.encode()) for one in reply.draws]
        assert [one.scores.preference for one in reply.draws] == lengths
        assert lengths[reply.best] == max(lengths)
        assert reply.chosen is reply.draws[reply.best]
        assert reply.best == lengths.index(max(lengths))  # of equal ones the first


def test_the_first_draw_is_what_would_be_said_without_reranking(policy: Policy) -> None:
    alone = sample_replies(policy, policy.tokenizer, PROMPTS, settings=SAMPLING, seeds=[11, 12])
    assert [one.first.reply.token_ids for one in draw(policy)] == [one.token_ids for one in alone]
    assert [one.chosen.reply.token_ids for one in draw(policy, n=1)] == [one.token_ids for one in alone]


def test_each_draw_can_be_made_again_from_its_seed(policy: Policy) -> None:
    for prompt, found in zip(PROMPTS, draw(policy), strict=True):
        for one in found.draws:
            (again,) = sample_replies(policy, policy.tokenizer, [prompt], settings=SAMPLING, seeds=[one.seed])
            assert again.token_ids == one.reply.token_ids
    assert len({draw_seed(seed, number) for seed in (11, 12) for number in range(8)}) == 16


def test_rules_alone_choose_where_there_is_no_reward_model(policy: Policy) -> None:
    for found in draw(policy, scorer=None, rule_scorer=first_byte):
        bytes_ = [(one.reply.text.encode() or b"\0")[0] for one in found.draws]
        assert bytes_[found.best] == min(bytes_)
        assert found.chosen.scores.preference is None
        assert found.chosen.scores.followed == pytest.approx((-0.01 * min(bytes_), -0.02 * min(bytes_)))


def test_where_nothing_is_asked_the_first_is_kept(policy: Policy) -> None:
    assert [one.best for one in draw(policy, scorer=None)] == [0, 0]
    assert [one.best for one in draw(policy, scorer=None, rule_scorer=first_byte, rules_of_prompt=[[], []])] == [0, 0]


def test_both_count_and_prompts_may_have_different_numbers_of_replies() -> None:
    # mean preference 1.5: the shorter reply keeps the rule so much better that it wins over the longer one
    found = score_draws(
        PROMPTS, [["~~", "!"], ["!!"]], scorer=longest_first, rule_scorer=first_byte, rules_of_prompt=[["one"], []]
    )
    wanted = [math.log(1 / (1 + math.exp(-0.5))) - 1.26, math.log(1 / (1 + math.exp(0.5))) - 0.33]
    assert [one.score for one in found[0]] == pytest.approx(wanted)
    assert found[0][1].score > found[0][0].score
    assert (found[1][0].followed, found[1][0].preference) == ((), 2.0)


def test_counts_that_differ_are_refused(policy: Policy) -> None:
    for changes in ({"seeds": [1]}, {"rules_of_prompt": [RULES]}, {"n": 0}):
        with pytest.raises(ValueError):
            draw(policy, **changes)


@pytest.fixture(scope="module")
def rule_model(tmp_path_factory: pytest.TempPathFactory) -> RuleModel:
    folder = tiny.save_base(tmp_path_factory.mktemp("base"), tiny.make_llama(), tiny.make_tokenizer())
    made = RuleModel.from_base(folder, RuleModelSettings()).eval()
    made.calibrate(1.7)
    return made


def test_a_rule_models_chances_are_its_calibrated_ones(rule_model: RuleModel) -> None:
    dialogues = [with_reply(prompt, "so it is") for prompt in PROMPTS]
    found = rule_scorer_of(rule_model)(dialogues, [RULES, RULES[:1]])
    wanted = rule_model.probabilities(dialogues, RULES)
    assert found[0] == pytest.approx([math.log(1 - float(one)) for one in wanted[0]], abs=1e-5)
    assert found[1] == pytest.approx([math.log(1 - float(wanted[1][0]))], abs=1e-5)


def test_a_breach_that_is_sure_keeps_a_number(rule_model: RuleModel, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sure:
        rules = torch.tensor([300.0])  # 1 - sigmoid of this is 0 in every float

    monkeypatch.setattr(rule_model, "logits_encoded", lambda encoded: [Sure()])
    assert rule_scorer_of(rule_model)([with_reply(PROMPTS[0], "x")], [RULES[:1]]) == [[pytest.approx(-300 / 1.7)]]


def test_with_a_reward_model_and_a_rule_model_of_networks(policy: Policy, rule_model: RuleModel, tmp_path: Any) -> None:
    base = tiny.save_base(tmp_path, tiny.make_llama(seed=3), tiny.make_tokenizer())
    reward_model = RewardModel.from_base(base, RewardModelSettings()).eval()
    for prompt, found in zip(
        PROMPTS, draw(policy, scorer=reward_model.scores, rule_scorer=rule_scorer_of(rule_model)), strict=True
    ):
        texts = [one.reply.text for one in found.draws]
        with torch.no_grad():
            scores = reward_model.scores([prompt], [texts])[0]
        broken = rule_model.probabilities([with_reply(prompt, text) for text in texts], RULES)
        by_hand = torch.sigmoid(scores - scores.mean()) * torch.stack([(1 - one).prod() ** 0.5 for one in broken])
        assert found.best == int(by_hand.argmax())
        assert [math.exp(one.scores.score) for one in found.draws] == pytest.approx(by_hand.tolist(), rel=1e-4)
