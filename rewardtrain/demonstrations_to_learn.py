"""What people wrote as a policy learns it: how much there is, fixed for a run, and read by one. No torch here.

The training split's demonstrations are learned, the validation split's are measured. The test split is for reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feedback import demonstrations, snapshots
from feedback.errors import FeedbackError
from feedback.models import Project, PromptGroup, Snapshot, User
from feedback.snapshot_contents import FROZEN
from rewardtrain.algorithms import learns_from_demonstrations, needs_demonstrations
from rewardtrain.chat import as_turns
from rewardtrain.examples import Demonstrated, Mixture
from rewardtrain.models import TrainingRun

if TYPE_CHECKING:
    from rewardtrain.hyperparameters import PpoSettings
    from rewardtrain.policy import Policy
    from rewardtrain.reporting import Silent

FEWEST_DEMONSTRATIONS = 8
"""Accepted ones of the training split that a policy learns from."""
LEARNED, HELD_OUT = PromptGroup.Split.TRAIN, PromptGroup.Split.VALIDATION


class TooFewDemonstrations(FeedbackError):
    """Too little was written and accepted to learn from; the message says how much, and what to do."""

    code = "too_few_demonstrations"
    status = 409


@dataclass(frozen=True)
class Ready:
    """How many accepted demonstrations there are now, and how many nobody has reviewed yet."""

    learned: int
    held_out: int
    waiting: int

    @property
    def problem(self) -> str:
        """What to do where there are too few; empty where there are enough."""
        if self.learned >= FEWEST_DEMONSTRATIONS:
            return ""
        waiting = f", and {self.waiting} waiting for a review" if self.waiting else ""
        return (
            f"A policy learns from at least {FEWEST_DEMONSTRATIONS} accepted demonstrations of the training split. "
            f"Here that split has {self.learned} accepted{waiting}. Open demonstrations on the overview page, let "
            "people write replies, and have others review them."
        )


def ready(project: Project) -> Ready:
    """What could be learned now."""
    sort_out = FROZEN[Snapshot.Kind.DEMONSTRATIONS].sort_out
    learned, held_out = (len(sort_out(project, {"splits": [split]})[0]) for split in (LEARNED, HELD_OUT))
    return Ready(learned, held_out, demonstrations.counts_of(project)["waiting"])


def freeze(
    *, project: Project, policy_settings: Mapping[str, Any], by: User | None = None, ring: bool = True
) -> Snapshot | None:
    """A snapshot of what people wrote, for a policy with such settings; None where they do not ask for any.

    ring    ask a worker to write it; False when the caller writes it itself
    Raises  TooFewDemonstrations
    """
    if not learns_from_demonstrations(policy_settings):
        return None
    found = ready(project)
    if problem := found.problem:
        if needs_demonstrations(policy_settings):
            raise TooFewDemonstrations(problem)
        return None
    return snapshots.freeze(project=project, kind=Snapshot.Kind.DEMONSTRATIONS, created_by=by, ring=ring)


def read(snapshot: Snapshot | None, split: str) -> list[Demonstrated]:
    """A snapshot's demonstrations of one split; none without a snapshot."""
    if snapshot is None:
        return []
    rows = snapshots.demonstrated_rows(snapshot, (split,))
    return [Demonstrated(as_turns(row.prompt), as_turns(row.completion)) for row in rows]


def mixed_into(run: TrainingRun, policy: Policy, settings: PpoSettings, reporter: Silent) -> Mixture | None:
    """What PPO mixes in: the run's demonstrations and its corpus; None where its settings ask for nothing."""
    from rewardtrain.corpora import corpus_of
    from rewardtrain.examples import demonstration_examples
    from rewardtrain.sft import pieces_of

    if not settings.ptx_coef:
        return None
    texts, about = corpus_of(run, settings.corpus)
    if about:
        reporter.keep(corpus=about)
    learned, _ = demonstration_examples(
        policy.tokenizer, read(run.demonstrations, LEARNED), max_positions=policy.max_positions,
        max_prompt_tokens=settings.sampling.max_prompt_tokens,
    )  # fmt: skip
    return Mixture(learned, pieces_of(policy, texts, settings.corpus_tokens), settings.corpus_share, settings.seed)
