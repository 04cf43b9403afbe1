"""What runs learn from: a project's prompts and its snapshot's rows, as trainers take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.db.models import QuerySet

from feedback.models import Project, Prompt, PromptGroup
from feedback.prompts import content_hash, fingerprint
from feedback.snapshots import RankedRow, snapshot_rows
from rewardtrain.chat import Turn, as_turns
from rewardtrain.errors import NothingToLearn
from rewardtrain.gate import GateSettings
from rewardtrain.models import TrainingRun
from rewardtrain.seeds import stable_seed

if TYPE_CHECKING:
    from rewardtrain import reward_training

MOST_PROMPTS = 20_000


def as_comparison(row: RankedRow) -> reward_training.RankedComparison:
    """A snapshot's row as the trainer takes it."""
    from rewardtrain.reward_training import RankedComparison

    return RankedComparison(
        prompt=as_turns(row.prompt),
        candidates=[as_turns(candidate["turns"]) for candidate in row.candidates],
        ranks=row.ranks,
        strength=row.strength,
        all_bad=row.all_bad,
    )


def own_share(run: TrainingRun, rows: list[RankedRow]) -> list[RankedRow]:
    """The comparisons this run may train on: in a round, its own side of the division by opening."""
    if run.round is None:
        return rows
    second_share = GateSettings.from_dict(run.round.hyperparameters.get("gate", {})).second_share
    is_second = run.kind == TrainingRun.Kind.SECOND_REWARD_MODEL
    own = [row for row in rows if _kept_for_second(row, run.round.seed, second_share) == is_second]
    return own or rows


def _kept_for_second(row: RankedRow, seed: int, share: float) -> bool:
    return stable_seed(seed, fingerprint(row.prompt)) / 2**63 < share


def gate_prompts(project: Project) -> QuerySet[Prompt]:
    """The everyday prompts a gate may be measured on. What probers wrote is asked about apart."""
    return Prompt.objects.filter(project=project).of_split(PromptGroup.Split.VALIDATION).exclude(source="probe")


def training_prompt_ids(run: TrainingRun) -> list[int]:
    """The training split's prompts; also those that annotators are not offered: imported, or written by a person.

    Each as often as it weighs: of weight 2 twice, of weight 0.5 in every second run, by the run's seed.
    """
    prompts = Prompt.objects.filter(project=run.project, weight__gt=0).of_split(PromptGroup.Split.TRAIN)
    weighed = prompts.order_by("content_hash").values_list("pk", "content_hash", "weight")[:MOST_PROMPTS]
    return [pk for pk, key, weight in weighed for _ in range(_times(weight, run.seed, key))][:MOST_PROMPTS]


def _times(weight: float, seed: int, key: str) -> int:
    whole, rest = int(weight), weight % 1
    return whole + (stable_seed(seed, "weight", key) / 2**63 < rest)


def training_prompts(run: TrainingRun, ids: Sequence[int], probes: Sequence[list[Turn]] = ()) -> list[list[Turn]]:
    """What PPO answers: these prompts, people's dialogues of the snapshot cut where a reply was wanted, and probes.

    probes  openings that probe a rule; none of them stands among the everyday ones as well
    """
    prompts = Prompt.objects.in_bulk(ids)
    openings = [as_turns(prompts[pk].messages) for pk in ids]
    probing = {_key(probe) for probe in probes}
    everyday = [one for one in openings + _dialogues_cut_at_user_turns(run) if not probing or _key(one) not in probing]
    if not everyday and not probes:
        raise NothingToLearn("The training split has no prompts. Import prompts, or let people open dialogues first.")
    return [*everyday, *probes]


def _key(turns: Sequence[Turn]) -> str:
    return content_hash([{"role": turn["role"], "content": turn["content"]} for turn in turns])


def _dialogues_cut_at_user_turns(run: TrainingRun) -> list[list[Turn]]:
    if run.snapshot is None:
        return []
    rows = [row for row in snapshot_rows(run.snapshot) if row.split == PromptGroup.Split.TRAIN and len(row.prompt) > 1]
    return [as_turns(row.prompt) for row in rows]
