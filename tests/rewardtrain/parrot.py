"""A backend that says what a function says, to stand in for every model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from feedback.errors import GenerationFailed
from rewardtrain import backends
from rewardtrain.backends import FailedJob, GenerationJob, MadeReply

Speaks = Callable[[GenerationJob, backends.Draw], str]


@dataclasses.dataclass
class Parrot:
    """A backend that says what a function says, and has no files. `passes` keeps what it was asked for."""

    speaks: Speaks
    passes: list[list[GenerationJob]] = dataclasses.field(default_factory=list)
    models: list[int] = dataclasses.field(default_factory=list)
    held_to: set[tuple[int, str]] = dataclasses.field(default_factory=set)
    before_each: Callable[[GenerationJob, backends.Draw], None] = lambda job, draw: None

    def generate(self, jobs: Sequence[GenerationJob], sampling: Mapping[str, Any]) -> Iterator[MadeReply | FailedJob]:
        self.passes.append(list(jobs))
        for job in jobs:
            try:
                yield from self._say(job, sampling)
            except GenerationFailed as err:
                yield FailedJob(job.key, err)

    def _say(self, job: GenerationJob, sampling: Mapping[str, Any]) -> Iterator[MadeReply]:
        for draw in job.draws:
            self.before_each(job, draw)
            yield MadeReply(
                key=job.key,
                draw=draw,
                text=self.speaks(job, draw),
                finish_reason="stop",
                model_hash="ab" * 32,
                seed=draw.seed,
                sampling=sampling,
                mean_logprob=-1.5,
                token_count=9,
            )
