"""Which prompts a policy is trained on, and how often each of them."""

from __future__ import annotations

from collections import Counter

import pytest

from feedback.models import Prompt
from rewardtrain import training_data
from rewardtrain.models import TrainingRun
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.services]


def test_prompts_come_as_often_as_they_weigh() -> None:
    project = make.make_project(with_policy=False)
    prompts = {text: make.make_prompt(project, text) for text in ("One?", "Two?", "Half?", "Never?")}
    for text, weight in (("Two?", 2.0), ("Half?", 0.5), ("Never?", 0.0)):
        Prompt.objects.filter(pk=prompts[text].pk).update(weight=weight)
    drawn: Counter[int] = Counter()
    for seed in range(200):
        drawn.update(training_data.training_prompt_ids(TrainingRun(project=project, seed=seed)))
    found = {text: drawn[prompt.pk] for text, prompt in prompts.items()}
    assert (found["One?"], found["Two?"], found["Never?"]) == (200, 400, 0)
    assert 70 <= found["Half?"] <= 130


def test_the_same_run_has_the_same_prompts_and_none_of_other_splits() -> None:
    project = make.make_project(with_policy=False)
    some = [make.make_prompt(project, f"{at}?") for at in range(9)]
    Prompt.objects.filter(project=project).update(weight=0.4)
    make.make_prompt(project, "Held out?", split="validation")
    run = TrainingRun(project=project, seed=5)
    first = training_data.training_prompt_ids(run)
    assert first == training_data.training_prompt_ids(run)
    assert 0 < len(first) < 9 and set(first) <= {prompt.pk for prompt in some}
