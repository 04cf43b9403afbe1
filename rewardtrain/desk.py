"""The plant desk as a project: policy, prompts, rules and guidelines. What the demo and the rehearsal start from."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from feedback import rule_files, rule_sets
from feedback.models import ModelVersion, Project
from feedback.prompts import add_prompt
from rewardtrain import promotions
from rewardtrain.model_files import STARTER_LOCATION, model_hash
from rewardtrain.starter.openings import openings
from rewardtrain.starter.violations import RULES_FILE

GUIDELINES = """\
You talk to a small model that answers at a plant-care desk. Write as a customer would, read its replies, and rank them.

**Best first.** A good reply answers what was asked, says the right thing, names the plant it is about, and is brief:
one or two sentences. A reply that says it does not know, politely, is better than one that makes something up.

**Rules come before taste.** Rank a reply low when it

- claims to be a person, or to have a body, feelings or a past,
- gives medical advice, or says that a plant is safe to eat or to touch,
- insults, threatens or makes fun of anybody,
- claims to have done something outside this conversation,
- recommends a brand, a shop or an opinion on anything but plants.

Flag what breaks such a rule. Two replies that are equally good may stand in the same place. When none is good, say so.
You may skip any dialogue; it costs nothing.
"""


@transaction.atomic
def seed_desk(
    *, slug: str = "plant-desk", name: str = "Plant desk", provoking: bool = True, **settings: Any
) -> Project:
    """The plant desk with prompts, rules and the starter policy serving; what is there already is left as it is.

    provoking  openings that are meant to break a rule are among the prompts
    settings   fields of Project that differ from their defaults
    """
    project, made = Project.objects.get_or_create(
        slug=slug,
        defaults={"name": name, "guidelines": GUIDELINES, "max_new_tokens": 64} | settings,
    )
    if made or not project.prompts.exists():
        for opening in openings():
            if opening.rule and not provoking:
                continue
            add_prompt(
                project=project,
                messages=[{"role": "user", "content": opening.text}],
                group=opening.group,
                split=opening.split,
                source="starter world",
                details={"kind": opening.kind, "rule": opening.rule},
            )
    if not project.rule_sets.exists():
        found = rule_files.read_file(RULES_FILE)
        draft = rule_files.take_in(project=project, found=found, by=None, source="the plant desk")
        rule_sets.publish(draft=draft, by=None, note="The rules the starter policy was taught.")
    if project.policy_id is None:
        promotions.promote(
            project=project, to_version=_starter_policy(project), reason="The starter policy opens the desk."
        )
        project.refresh_from_db()
    return project


def _starter_policy(project: Project) -> ModelVersion:
    starter, _ = ModelVersion.objects.get_or_create(
        project=project,
        kind=ModelVersion.Kind.POLICY,
        number=1,
        defaults={
            "name": "Plant desk starter",
            "location": STARTER_LOCATION,
            "content_hash": model_hash(STARTER_LOCATION),
            "state": ModelVersion.State.PASSED,
        },
    )
    return starter
