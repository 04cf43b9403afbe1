"""What can speak: two backends behind one interface, so that nobody else asks where a reply comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from feedback.errors import GenerationFailed
from feedback.models import ModelVersion

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Draw:
    """One reply to make: its place among its siblings, the how-manieth try it is, and the seed of its randomness."""

    index: int
    draw: int
    seed: int


@dataclass(frozen=True)
class GenerationJob:
    """A dialogue and the replies it still lacks.

    key      what its replies come back under: the request's id; several jobs may share it
    speaker  whose turn is written: the assistant's, or `search_query` for the words it would search for
    """

    key: int
    messages: Messages
    draws: tuple[Draw, ...]
    speaker: str = "assistant"


@dataclass(frozen=True)
class MadeReply:
    """One reply, with what exactly made it.

    seed      the seed that was really used, which a server may want smaller than the draw's
    sampling  every setting in effect, the model's own defaults included
    """

    key: int
    draw: Draw
    text: str
    finish_reason: str
    model_hash: str
    seed: int
    sampling: Mapping[str, Any] = field(default_factory=dict)
    mean_logprob: float | None = None
    token_count: int | None = None


@dataclass(frozen=True)
class FailedJob:
    """A job that cannot be finished now; what it made before stands."""

    key: int
    error: GenerationFailed


class Backend(Protocol):
    """Something that answers dialogues. Jobs that come together may be computed together."""

    def generate(self, jobs: Sequence[GenerationJob], sampling: Mapping[str, Any]) -> Iterator[MadeReply | FailedJob]:
        """Give each reply as soon as it is made. One job's failure leaves the others alone.

        sampling  temperature, max_new_tokens, top_p, …; unknown names are refused
        """


def backend_for(version: ModelVersion) -> Backend:
    """The backend of a model that speaks.

    Raises  GenerationFailed when the model cannot speak at all
    """
    if version.kind != ModelVersion.Kind.POLICY:
        raise GenerationFailed(f"{version} scores replies and cannot write them.", permanent=True)
    if version.backend == ModelVersion.Backend.OPENAI:
        from rewardtrain.backends.openai_compatible import OpenAICompatible

        return OpenAICompatible(version)
    from rewardtrain.backends.transformers_local import TransformersLocal

    return TransformersLocal(version)
