"""What pays a policy, from rows: a rule model asked about replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from feedback.models import ModelVersion, Project, RuleSet
from rewardtrain.checkpoints import folder_hash
from rewardtrain.hyperparameters import RuleModelSettings
from rewardtrain.reward_terms import load_chances_followed
from rewardtrain.rule_model import RuleModel
from tests import make
from tests.rewardtrain import tiny
from tests.rewardtrain.tiny import bot, user

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(tmp_path: Path, settings: Any) -> Project:
    settings.DATA_DIR = tmp_path
    return make.make_project()


@pytest.fixture
def rule_set(project: Project) -> RuleSet:
    return make.make_rule_set(project, rules=3)


@pytest.fixture
def version(project: Project, tmp_path: Path) -> ModelVersion:
    """A rule model that has learned nothing, with a temperature."""
    base = tiny.save_base(tmp_path / "base", tiny.make_llama(), tiny.make_tokenizer())
    rule_model = RuleModel.from_base(base, RuleModelSettings(seed=3))
    rule_model.calibrate(2.0)
    folder = tmp_path / "models" / "rules"
    folder.mkdir(parents=True)
    rule_model.save(folder)
    return make.make_model(project, kind="rule", location="rules", content_hash=folder_hash(folder))


def test_replies_are_asked_about_with_their_dialogue_by_every_rule_calibrated(version, rule_set, tmp_path):
    rules = list(rule_set.rules.all())
    prompts, replies = [[user("hi")], [user("a"), bot("b"), user("c")]], [["yes", "no, never"], ["so"]]
    found = load_chances_followed(version, rules)(prompts, replies)
    assert [tuple(own.shape) for own in found] == [(2, 3), (1, 3)]
    rule_model = RuleModel.load(tmp_path / "models" / "rules")
    dialogues = [[*prompt, bot(text)] for prompt, own in zip(prompts, replies, strict=True) for text in own]
    with torch.no_grad():
        logits = rule_model.logits(dialogues, [[rule.wording for rule in rules]] * 3)
    assert_close(torch.cat(found), torch.stack([1 - torch.sigmoid(one.rules / 2) for one in logits]))


def test_a_prompt_may_be_asked_about_some_rules_alone_and_a_reply_be_of_several_turns(version, rule_set):
    ask = load_chances_followed(version, list(rule_set.rules.all()))
    prompts, replies = [[user("hi")], [user("hi")]], [["yes"], ["yes"]]
    whole = ask(prompts, replies)
    some = ask(prompts, replies, [[2], [0, 1, 2]])
    assert_close(some[0], whole[0][:, 2:])
    assert_close(some[1], whole[1])
    assert_close(ask(prompts[:1], [[[bot("yes")]]])[0], whole[0])
