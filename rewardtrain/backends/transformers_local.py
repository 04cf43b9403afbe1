"""Policies whose weights this worker loads: on CPU or GPU, whatever waits in one batch, each dialogue encoded once."""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from django.conf import settings

from feedback.errors import GenerationFailed
from feedback.models import ModelVersion
from rewardtrain.backends import Draw, FailedJob, GenerationJob, MadeReply
from rewardtrain.chat import EncodedPrompt, as_turns
from rewardtrain.errors import LearningError
from rewardtrain.hyperparameters import InvalidSettings, SamplingSettings
from rewardtrain.model_files import verified_folder
from rewardtrain.policy import Policy, load_policy
from rewardtrain.sampling import Reply, encode_for_sampling, sample_replies

logger = logging.getLogger(__name__)
COMPUTING_ERRORS = (RuntimeError, ValueError, IndexError, LearningError)  # torch's own are RuntimeErrors


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy in memory, with the hash its files had when they were read."""

    policy: Policy
    model_hash: str


class LoadedPolicies:
    """The few policies spoken with last, by content, so that equal files are in memory once.

    One lock for loading and computing: two threads computing at once would only slow each other down.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._loaded: OrderedDict[str, LoadedPolicy] = OrderedDict()

    def get(self, version: ModelVersion) -> LoadedPolicy:
        """The policy of a model version, read and verified at its first use.

        Raises  GenerationFailed when its files are missing, changed, or anything but data
        """
        key = version.content_hash or f"{version.pk} {version.location}"
        with self.lock:
            if key not in self._loaded:
                self._make_room()
                self._loaded[key] = _load(version)
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def forget_all(self) -> None:
        """Free the memory."""
        with self.lock:
            self._loaded.clear()

    def __len__(self) -> int:
        return len(self._loaded)

    def _make_room(self) -> None:
        while len(self._loaded) >= settings.GENERATION_MODELS_IN_MEMORY:
            self._loaded.popitem(last=False)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _load(version: ModelVersion) -> LoadedPolicy:
    device = chosen_device()
    try:
        folder, found = verified_folder(version)
        policy = load_policy(folder, device=device, dtype="bfloat16" if device.startswith("cuda") else "float32")
    except torch.OutOfMemoryError as err:
        raise GenerationFailed("There is not enough memory for this model just now.") from err
    except LearningError as err:
        raise GenerationFailed(err.message, permanent=True) from err
    except Exception as err:  # noqa: BLE001 - the loaders raise whatever a malformed file makes them trip over
        raise GenerationFailed(f"The files of {version} cannot be loaded. {_short(err)}", permanent=True) from err
    logger.info("policy loaded model=%s hash=%s device=%s", version.pk, found[:12], device)
    return LoadedPolicy(policy, found)


def chosen_device() -> str:
    """Where networks run: as NESTBOX_DEVICE says; with `auto` a GPU if there is one."""
    if settings.GENERATION_DEVICE == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return settings.GENERATION_DEVICE


loaded_policies = LoadedPolicies()


@dataclass(frozen=True)
class Row:
    """One reply to compute."""

    job: GenerationJob
    draw: Draw
    prompt: EncodedPrompt


class TransformersLocal:
    """The backend of a policy in the Hugging Face format. See `rewardtrain.backends.Backend`."""

    def __init__(self, version: ModelVersion) -> None:
        self.version = version

    def generate(self, jobs: Sequence[GenerationJob], sampling: Mapping[str, Any]) -> Iterator[MadeReply | FailedJob]:
        """Give the replies batch by batch, the oldest job's first."""
        loaded = loaded_policies.get(self.version)
        wanted = sampling_settings(sampling, loaded.policy.max_positions)
        rows: list[Row] = []
        for job in jobs:
            try:
                prompt = encode_for_sampling(
                    loaded.policy, loaded.policy.tokenizer, as_turns(job.messages), wanted, job.speaker
                )
            except COMPUTING_ERRORS as err:
                yield FailedJob(job.key, _failure(err, permanent=True))
            else:
                rows += [Row(job, draw, prompt) for draw in job.draws]
        for batch in _batches(rows, settings.GENERATION_ROWS_AT_ONCE):
            yield from _compute(loaded, batch, wanted)


def sampling_settings(sampling: Mapping[str, Any], max_positions: int) -> SamplingSettings:
    """Settings as the request gives them; the prompt may fill what the reply leaves of the network's window.

    Raises  GenerationFailed when a value cannot work
    """
    room = max_positions - int(sampling.get("max_new_tokens", SamplingSettings.max_new_tokens))
    if room < 1:
        raise GenerationFailed(
            f"This model takes {max_positions} tokens in all, which leaves no room for a dialogue beside so long a "
            "reply. Lower max_new_tokens in the project.",
            permanent=True,
        )
    try:
        return SamplingSettings.from_dict({"max_prompt_tokens": room, **sampling})
    except (InvalidSettings, TypeError) as err:
        raise GenerationFailed(f"The sampling settings cannot be used. {err}", permanent=True) from err


def _batches(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _compute(loaded: LoadedPolicy, rows: Sequence[Row], wanted: SamplingSettings) -> Iterator[MadeReply | FailedJob]:
    """The replies of one batch. One that fails is halved, so that a bad row, or too little memory, harms no other."""
    try:
        replies = _sample(loaded, rows, wanted)
    except COMPUTING_ERRORS as err:
        if len(rows) == 1:
            logger.exception("reply failed request=%s index=%s", rows[0].job.key, rows[0].draw.index)
            yield FailedJob(rows[0].job.key, _failure(err))
            return
        yield from _compute(loaded, rows[: len(rows) // 2], wanted)
        yield from _compute(loaded, rows[len(rows) // 2 :], wanted)
        return
    for row, reply in zip(rows, replies, strict=True):
        yield _result(loaded, row, reply, wanted)


def _sample(loaded: LoadedPolicy, rows: Sequence[Row], wanted: SamplingSettings) -> list[Reply]:
    with loaded_policies.lock:
        return sample_replies(
            loaded.policy,
            loaded.policy.tokenizer,
            [row.prompt for row in rows],
            settings=wanted,
            seeds=[row.draw.seed for row in rows],
            rows_per_batch=len(rows),
        )


def _result(loaded: LoadedPolicy, row: Row, reply: Reply, wanted: SamplingSettings) -> MadeReply | FailedJob:
    if not math.isfinite(reply.mean_logprob):
        damaged = GenerationFailed("The model's numbers are not finite; its weights are damaged.", permanent=True)
        return FailedJob(row.job.key, damaged)
    return MadeReply(
        key=row.job.key,
        draw=row.draw,
        text=reply.text,
        finish_reason="stop" if reply.finished else "length",
        model_hash=loaded.model_hash,
        seed=row.draw.seed,
        sampling=wanted.to_dict() | _circumstances(loaded.policy, row.prompt),
        mean_logprob=reply.mean_logprob,
        token_count=len(reply.token_ids),
    )


def _circumstances(policy: Policy, prompt: EncodedPrompt) -> dict[str, Any]:
    """What besides settings and seed decides a reply: where it was computed, and what was cut from the dialogue."""
    dtype = str(next(policy.parameters()).dtype).removeprefix("torch.")
    found: dict[str, Any] = {"device": policy.device.type, "dtype": dtype}
    if prompt.turns_cut or prompt.tokens_cut:
        found |= {"turns_cut": prompt.turns_cut, "tokens_cut": prompt.tokens_cut}
    return found


def _failure(err: Exception, *, permanent: bool = False) -> GenerationFailed:
    if isinstance(err, torch.OutOfMemoryError):
        return GenerationFailed("There was not enough memory for one reply. Use a smaller model or shorter replies.")
    return GenerationFailed(f"The model could not answer. {_short(err)}", permanent=permanent)


def _short(err: Exception) -> str:
    return err.message if isinstance(err, LearningError) else f"{type(err).__name__}: {str(err)[:300]}"
