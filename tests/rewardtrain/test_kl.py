"""KL estimates and their controllers."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from rewardtrain.kl import ESTIMATORS, AdaptiveKl, FixedKl, kl_controller, reply_kl, token_kl

t = torch.tensor


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_equal_policies_have_no_kl(estimator):
    logprobs = torch.randn(3, 5)
    assert (token_kl(logprobs, logprobs.clone(), estimator=estimator) == 0).all()


def test_each_estimator_on_a_hand_worked_token():
    logprobs, ref_logprobs = t([0.5]).log(), t([0.25]).log()
    assert_close(token_kl(logprobs, ref_logprobs), t([2.0]).log())
    assert_close(token_kl(logprobs, ref_logprobs, estimator="squared"), t([2.0]).log() ** 2 / 2)
    assert_close(token_kl(logprobs, ref_logprobs, estimator="unbiased"), t([0.5]) - 1 + t([2.0]).log())


@pytest.mark.parametrize("estimator", ["difference", "unbiased"])
def test_two_estimators_have_the_true_kl_as_their_mean(estimator):
    policy, reference = t([0.5, 0.3, 0.2], dtype=torch.float64), t([0.2, 0.2, 0.6], dtype=torch.float64)
    true = (policy * (policy / reference).log()).sum()
    # the expectation over the policy's own tokens, taken exactly
    estimate = (policy * token_kl(policy.log(), reference.log(), estimator=estimator)).sum()
    assert_close(estimate, true)


def test_the_unbiased_estimate_is_never_below_0():
    assert (token_kl(torch.randn(500), torch.randn(500), estimator="unbiased") >= 0).all()


def test_an_unknown_estimator_is_refused_by_name():
    with pytest.raises(ValueError, match="k9.*difference, squared, unbiased"):
        token_kl(t([0.0]), t([0.0]), estimator="k9")


def test_the_kl_of_a_reply_sums_its_real_tokens():
    logprobs, ref_logprobs = t([[0.0, -1.0, 7.0], [-2.0, 9.0, 9.0]]), t([[-1.0, -1.5, 0.0], [-1.0, 0.0, 0.0]])
    mask = t([[True, True, False], [True, False, False]])
    assert_close(reply_kl(logprobs, ref_logprobs, mask), t([1.5, -1.0]))


def test_a_fixed_coefficient_stays():
    controller = FixedKl(0.1)
    controller.update(100.0, 64)
    assert controller.kl_coef == 0.1


@pytest.mark.parametrize(
    ("kl_nats", "factor"),
    [(1.0, 1.0), (1.1, 1 + 0.1 * 50 / 1000), (9.0, 1 + 0.2 * 50 / 1000), (0.0, 1 - 0.2 * 50 / 1000)],
)
def test_the_adaptive_coefficient_follows_the_error_cut_to_a_fifth(kl_nats, factor):
    controller = AdaptiveKl(0.1, target_nats=1.0, horizon_samples=1000)
    controller.update(kl_nats, 50)
    assert controller.kl_coef == pytest.approx(0.1 * factor)


def test_controllers_are_made_by_name():
    made = kl_controller("adaptive", kl_coef=0.2, target_nats=2.0, horizon_samples=10)
    assert made == AdaptiveKl(0.2, 2.0, 10)
    assert kl_controller("fixed", kl_coef=0.2, target_nats=2.0, horizon_samples=10) == FixedKl(0.2)
    with pytest.raises(ValueError, match="'loose'; choose fixed or adaptive"):
        kl_controller("loose", kl_coef=0.2, target_nats=2.0, horizon_samples=10)
