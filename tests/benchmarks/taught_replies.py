"""What a few dozen written replies teach the starter: demonstrations collected, reviewed, learned, and measured.

    DATA_DIR=/tmp/taught python -m tests.benchmarks.taught_replies --demonstrations 80 --json taught.json

The folder must be new. Simulated people write through the same functions as the pages: careful replies to everyday
openings, each with a house habit at its end that the starter does not have. One writes, another accepts. Then
`train_sft` runs as for anybody, and start and result answer openings of the test split, which nothing learned from.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

HABIT = "Tell me in a week how it looks."
SHOWN = 4
MEASURED = 120


def write_and_review(project: Any, count: int, held_out: int) -> None:
    """`count` accepted replies to openings of the training split, `held_out` to those of the validation split."""
    from feedback import demonstration_reviews, demonstrations, demonstrations_wanted, slots
    from feedback.models import Membership, User, WorkItem
    from rewardtrain.starter.corpus import Rates, write_reply
    from rewardtrain.starter.questions import situation_of

    careful = Rates(**dict.fromkeys(Rates.__dataclass_fields__, 0.0))
    rng = random.Random(1)
    writer, reader = (User.objects.create_user(name, password=uuid4().hex) for name in ("writer", "reader"))
    for user in (writer, reader):
        Membership.objects.create(project=project, user=user, role=Membership.Role.ANNOTATOR)
    for split, wanted in (("train", count), ("validation", held_out)):
        found = project.prompts.of_split(split).filter(details__kind="everyday").order_by("content_hash")
        for prompt in list(found)[:wanted]:
            item = demonstrations_wanted.ask_for_demonstrations(prompt=prompt)
            slot = slots.claim_slot(item.slots.get().pk, user=writer)
            text = f"{write_reply(situation_of(prompt.messages), rng, careful)} {HABIT}"
            written = demonstrations.record_demonstration(slot=slot, content=text, submit_key=uuid4(), keep_alike=True)
            review = written.work_items.get(kind=WorkItem.Kind.REVIEW)
            slot = slots.claim_slot(review.slots.get().pk, user=reader)
            demonstration_reviews.record_review(slot=slot, verdict="accepted", submit_key=uuid4())


def answered(folder: Path, openings: list[list[dict[str, str]]]) -> list[str]:
    """One reply to each opening at temperature 1."""
    from rewardtrain.hyperparameters import SamplingSettings
    from rewardtrain.policy import load_policy
    from rewardtrain.sampling import sample_replies

    policy = load_policy(folder)
    drawn = sample_replies(
        policy, policy.tokenizer, openings, settings=SamplingSettings(), seeds=list(range(len(openings)))
    )
    return [reply.text for reply in drawn]


def figures(openings: list[list[dict[str, str]]], replies: list[str]) -> dict[str, float]:
    """Shares of replies with the habit, that break a rule, and that are fluent; the habit itself is not judged."""
    from rewardtrain.starter import oracle

    plain = [reply.replace(HABIT, "").strip() for reply in replies]
    scores = [oracle.score(opening, reply) for opening, reply in zip(openings, plain, strict=True)]
    count = len(replies)
    return {
        "habit": sum(reply.endswith(HABIT) for reply in replies) / count,
        "oracle": sum(one.total for one in scores) / count,
        "breaks_a_rule": sum(bool(one.broken_rules) for one in scores) / count,
        "fluent": sum(map(oracle.is_fluent, plain)) / count,
    }


def main(arguments: Any) -> None:
    from django.core.management import call_command

    from rewardtrain import command_line
    from rewardtrain.desk import seed_desk
    from rewardtrain.models import TrainingRun
    from rewardtrain.run_files import folder_of

    call_command("migrate", verbosity=0)
    project = seed_desk(demonstrations_open=True)
    write_and_review(project, arguments.demonstrations, arguments.held_out)
    sets = [word for one in arguments.set for word in ("--set", one)]
    began = time.process_time()
    call_command("train_sft", "--project", project.slug, *sets, stdout=StringIO())
    run = TrainingRun.objects.select_related("produced", "parent").get()
    everyday = project.prompts.of_split("test").filter(details__kind="everyday").order_by("content_hash")
    openings = [prompt.messages for prompt in everyday[:MEASURED]]
    made, start = (answered(folder_of(version), openings) for version in (run.produced, run.parent))
    found = {
        "run": {**run.result, "seconds": time.process_time() - began},
        "before": figures(openings, start), "after": figures(openings, made),
        "shown": [
            {"asked": opening[-1]["content"], "before": one, "after": other}
            for opening, one, other in list(zip(openings, start, made, strict=True))[:SHOWN]
        ],
    }  # fmt: skip
    command_line.write_json(arguments.json, found)
    names = ("held_out_before", "held_out_after", "kl_nats", "cpu_seconds", "optimizer_tokens")
    lines = [f"{name} {run.result[name]}" for name in names]
    lines += [
        f"{name} { {key: round(value, 3) for key, value in found[name].items()} }" for name in ("before", "after")
    ]
    lines += [f"\n> {one['asked']}\n  before: {one['before']}\n  after:  {one['after']}" for one in found["shown"]]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demonstrations", type=int, default=80)
    parser.add_argument("--held-out", type=int, default=30)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.base")
    import django

    django.setup()
    main(given)
