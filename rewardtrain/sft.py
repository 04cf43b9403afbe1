"""Supervised fine-tuning: a policy learns to say what people wrote, by TRL's SFTTrainer on our token ids.

Only the replies that people wrote carry loss, and where a corpus is mixed in, all of its text. TRL never tokenises
anything here (`rewardtrain.examples` does).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from rewardtrain.algorithms import SftSettings
from rewardtrain.drawing import Drawer, figures
from rewardtrain.errors import NothingToLearn
from rewardtrain.examples import Cuts, Demonstrated, Example, Mixture, corpus_pieces, demonstration_examples, rows_for
from rewardtrain.policy import Policy, ReferencePolicy
from rewardtrain.rollouts import Advice
from rewardtrain.shared_prefix import length_buckets, pad_rows, reply_states
from rewardtrain.trl_border import OnStep, Quiet, Told, lent, optimizer_and_schedule, run_trainer, trainer_arguments

ADVICE = Advice(unit="step", far=(), alike=("corpus_share",))
TOKENS_PER_FORWARD = 8192  # where nothing is learned


@dataclass(frozen=True)
class HeldOut:
    """How well a policy says what people wrote and it has not learned."""

    tokens: int
    loss: float  # nats a token
    accuracy: float  # share of tokens that it holds for the likeliest

    def to_dict(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "loss": round(self.loss, 4), "token_accuracy": round(self.accuracy, 4)}


@dataclass(frozen=True)
class SftResult:
    """The policy was changed in place; this is what happened to it."""

    demonstrations: int
    pieces: int  # of the corpus, that it has; not all need have been learned
    steps: int
    optimizer_tokens: int  # that gradients came from
    corpus_tokens: int  # those of them that stand in the corpus
    cuts: Cuts
    before: HeldOut | None  # None where nothing was held out
    after: HeldOut | None
    kl_nats: float  # of replies drawn at the end, to the start


class _Sft(Quiet, SFTTrainer):
    """TRL's trainer on rows that are token ids already, in the order in which they stand."""

    def _prepare_dataset(self, dataset: Any, *rest: Any, **named: Any) -> Any:
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)


def train_by_sft(
    demonstrations: Sequence[Demonstrated],
    *,
    policy: Policy,
    ref_policy: ReferencePolicy,
    settings: SftSettings,
    corpus: Sequence[str] = (),
    held_out: Sequence[Demonstrated] = (),
    on_begin: Callable[[int], object] = lambda steps: None,
    on_step: OnStep = lambda done, total, figures: None,
) -> SftResult:
    """Optimise `policy` in place; saving it is the caller's.

    corpus    documents; `corpus_share` of the learned tokens is taken from them
    held_out  demonstrations that are measured before, on the way and afterwards, and not learned
    Raises    TrainingDiverged at numbers that are none or a policy that gives everybody the same reply; NothingToLearn
              without demonstrations, or with a corpus too short to learn from; whatever the callbacks raise
    """
    settings.validate()
    if not demonstrations:
        raise NothingToLearn("SFT needs at least one demonstration to learn from.")
    learned, cuts = _examples(policy, demonstrations, settings)
    mixture = Mixture(learned, pieces_of(policy, corpus, settings.corpus_tokens), settings.corpus_share, settings.seed)
    measured, _ = _examples(policy, held_out, settings)
    steps = rows_for(
        mixture, epochs=settings.epochs, steps=settings.steps, rows_per_step=settings.rows_per_step
    )  # fmt: skip
    drawer = Drawer(policy, ref_policy, [one.prompt for one in demonstrations], [], settings.as_drawn(), ADVICE)
    probed = {max(1, round(len(steps) * number / settings.probes)) for number in range(1, settings.probes + 1)}
    before = last = measure(policy, measured)
    kl_nats = 0.0

    def told(step: int, logs: Mapping[str, float]) -> None:
        nonlocal last, kl_nats
        seen: dict[str, float] = {}
        if step in probed:
            policy.eval()  # TRL turns dropout on again at its next step
            last, seen = measure(policy, measured), figures(drawer.draw(step - 1))
            del seen["ppo/reward"]  # nothing is paid here
            kl_nats = seen["ppo/kl_nats"]
        on_step(step, len(steps), {**_figures(logs), **_held_out_figures(last if step in probed else None), **seen})

    on_begin(len(steps))
    _train(policy, [row for rows in steps for row in rows], len(steps), settings, told)
    return SftResult(
        demonstrations=len(learned),
        pieces=len(mixture.pieces),
        steps=len(steps),
        optimizer_tokens=sum(len(row.learned) for rows in steps for row in rows),
        corpus_tokens=sum(len(row.learned) for rows in steps for row in rows if row.is_corpus),
        cuts=cuts,
        before=before,
        after=last,
        kl_nats=kl_nats,
    )


def _examples(
    policy: Policy, demonstrations: Sequence[Demonstrated], settings: SftSettings
) -> tuple[list[Example], Cuts]:
    return demonstration_examples(
        policy.tokenizer, demonstrations, max_positions=policy.max_positions,
        max_prompt_tokens=settings.sampling.max_prompt_tokens, max_reply_tokens=settings.max_reply_tokens,
    )  # fmt: skip


def pieces_of(policy: Policy, corpus: Sequence[str], tokens: int) -> list[Example]:
    """A corpus as rows that the policy has positions for.

    Raises  NothingToLearn where there is a corpus and it is too short for one
    """
    pieces = corpus_pieces(policy.tokenizer, corpus, min(tokens, policy.max_positions))
    if corpus and not pieces:
        raise NothingToLearn("The corpus has too few tokens to learn from. Name a longer one, or none.")
    return pieces


def _train(
    policy: Policy, rows: Sequence[Example], steps: int, settings: SftSettings,
    told: Callable[[int, Mapping[str, float]], object],
) -> None:  # fmt: skip
    with lent(policy, settings.seed) as (folder, tokenizer):
        args = SFTConfig(
            **trainer_arguments(policy, folder, settings.seed, settings.max_grad_norm),
            max_steps=steps,
            per_device_train_batch_size=settings.rows_per_forward,
            gradient_accumulation_steps=settings.rows_per_step // settings.rows_per_forward,
            max_length=None,  # what does not fit was cut as our encoding cuts
        )
        trainer = _Sft(
            model=policy.network,
            args=args,
            train_dataset=Dataset.from_list([{"input_ids": row.ids, "labels": row.labels} for row in rows]),
            processing_class=tokenizer,
            callbacks=[Told(told)],
            optimizers=optimizer_and_schedule(policy, settings, steps, round(settings.warmup_share * steps)),
        )
        run_trainer(trainer, policy)


def _figures(logs: Mapping[str, float]) -> dict[str, float]:
    """A step's figures. Its accuracy is the mean over what went through the network at once."""
    return {
        "sft/loss": logs["loss"],
        "sft/token_accuracy": logs["mean_token_accuracy"],
        "sft/learning_rate": logs["learning_rate"],
        "sft/gradient_norm": logs["grad_norm"],
    }


def _held_out_figures(found: HeldOut | None) -> dict[str, float]:
    return {} if found is None else {"sft/held_out": found.loss, "sft/held_out_accuracy": found.accuracy}


# Measured, and mixed into other losses


@torch.no_grad()
def measure(policy: Policy, examples: Sequence[Example]) -> HeldOut | None:
    """Loss and accuracy over the learned tokens of these rows; None where there are none."""
    if not examples:
        return None
    tokens, loss, right = 0, 0.0, 0
    for part in length_buckets([len(one.ids) for one in examples], TOKENS_PER_FORWARD):
        logprobs, is_likeliest = _spoken(policy, [examples[place] for place in part])
        tokens += len(logprobs)
        loss -= float(logprobs.sum())
        right += int(is_likeliest.sum())
    return HeldOut(tokens, loss / tokens, right / tokens)


def _spoken(policy: Policy, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """((N,) log-probability, (N,) bool: the likeliest) of every learned token of these rows."""
    states = reply_states(
        policy.trunk, [one.before for one in examples], [one.learned[:-1] for one in examples],
        list(range(len(examples))), pad_id=policy.pad_id,
    )  # fmt: skip
    hidden = torch.cat([states.before.unsqueeze(1), states.states], dim=1)
    ids, mask = pad_rows([one.learned for one in examples], policy.pad_id, device=hidden.device)
    logits = policy.logits(hidden[mask])
    said = ids[mask]
    return logits.log_softmax(-1).gather(-1, said.unsqueeze(-1)).squeeze(-1), logits.argmax(-1) == said
