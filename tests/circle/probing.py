"""Probes of a small project's rules and what people said of them, for tests."""

from __future__ import annotations

from feedback.models import Dialogue, Probe, Project, Rule, Turn
from tests import make


def probe_at(project: Project, place: int, split: str, *, key: str = "") -> Probe:
    """A probe of one exchange, by turns of the first or second rule, whose opening lies on that side of the split."""
    rule = Rule.objects.get(rule_set__project=project, rule_set__state="published", key=key or f"r{place % 2 + 1}")
    opening = f"Do {place}."
    prompt = project.prompts.filter(messages=[{"role": "user", "content": opening}]).first()
    dialogue = Dialogue.objects.create(
        project=project, kind=Dialogue.Kind.PROBE, policy=project.policy, author=make.make_member(project, "alice"),
        prompt=prompt or make.make_prompt(project, opening, split), ended_at="2026-11-21T12:00Z",
    )  # fmt: skip
    for position, (role, content) in enumerate((("user", opening), ("assistant", f"I did {place}."))):
        Turn.objects.create(dialogue=dialogue, position=position, role=role, content=content)
    return Probe.objects.create(dialogue=dialogue, rule=rule)


def judge_probes(
    project: Project, *, training: int = 12, validation: int = 12, verdicts: tuple[int, int] | None = None
) -> None:
    """So many judged probes on either side of the split; two of four broke their rule where no verdicts are given."""
    for place in range(training + validation):
        probe = probe_at(project, place, "train" if place < training else "validation")
        said = verdicts or ((1, 2) if place // 2 % 2 else (5, 4))
        for name, verdict in zip(("bob", "carol"), said, strict=True):
            make.make_judgement(probe, name=name, verdict=verdict)
