"""Several processes that train one network: each does its part of every step, and all end a step with the same weights.

Every process runs the same trainer on the same data with the same seeds. What costs (drawing, scoring, forward and
backward passes) is divided; what it gave is exchanged, so that whatever is decided from it is decided alike everywhere.
The first process alone writes to the record and the disk. Nothing here loads torch until there is a team.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from rewardtrain.hyperparameters import InvalidSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """One process's place among those that train together; alone by default, where nothing is exchanged."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that reports and saves."""
        return self.rank == 0

    def own(self, items: Sequence[T]) -> list[T]:
        """This process's part: every `size`-th, so that long and short ones are spread."""
        return list(items[self.rank :: self.size])

    def gathered(self, own: list[T]) -> list[T]:
        """What all processes have of `own` parts, in the order of the whole. They may differ in length by one."""
        if self.size == 1:
            return own
        parts = self._of_each(own)
        whole: list[Any] = [None] * sum(len(part) for part in parts)
        for rank, part in enumerate(parts):
            whole[rank :: self.size] = part
        return whole

    def sums(self, numbers: Iterable[float]) -> list[float]:
        """Each number summed over the processes."""
        own = list(numbers)
        if self.size == 1:
            return own
        return [sum(column) for column in zip(*self._of_each(own), strict=True)]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Put on every process the sum of all their gradients; one that had nothing to do counts as zero."""
        if self.size == 1:
            return
        import torch
        from torch import distributed

        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in wanted:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for group in _buckets([parameter.grad for parameter in wanted if parameter.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in group])
            with _together():
                distributed.all_reduce(flat)
            for gradient, summed in zip(group, flat.split([one.numel() for one in group]), strict=True):
                gradient.copy_(summed.view_as(gradient))

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, on every process."""
        if self.size == 1:
            return make()
        from torch import distributed

        held = [make() if self.is_first else None]
        with _together():
            distributed.broadcast_object_list(held)
        return held[0]  # type: ignore[return-value]

    def first_then_others(self, work: Callable[[], T]) -> T:
        """Every process does the work, the others once the first has."""
        done = work() if self.is_first else None
        self.from_first(lambda: True)
        return done if self.is_first else work()  # type: ignore[return-value]

    def _of_each(self, own: T) -> list[T]:
        from torch import distributed

        each: list[Any] = [None] * self.size
        with _together():
            distributed.all_gather_object(each, own)
        return each


class TeamBroken(RuntimeError):
    """Another process of the team ended before its part was done. The run can be tried again."""

    message = "Another process that worked on this run was ended."


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as err:
        raise TeamBroken(f"{TeamBroken.message} {err}") from err


ALONE = Team()
LONGEST_WAIT = timedelta(hours=2)
"""For another process's part. The first one also writes states and measures while the others wait."""
BUCKET = 32 * 1024**2
"""Numbers in one exchange: few large exchanges are quicker than many small ones, and this many fit beside a network."""


def _buckets(tensors: Sequence[Tensor]) -> Iterable[list[Tensor]]:
    """Tensors in order, those of one kind together, as many as fit a bucket."""
    group: list[Tensor] = []
    for tensor in tensors:
        full = group and sum(one.numel() for one in group) + tensor.numel() > BUCKET
        if full or (group and group[0].dtype != tensor.dtype):
            yield group
            group = []
        group.append(tensor)
    if group:
        yield group


# Meeting


def expected_size() -> int:
    """How many processes were started together with this one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number among them, from 0."""
    return int(os.environ.get("RANK", "0"))


def join(device: str) -> Team:
    """Meet the processes that were started together with this one; on CUDA each has a device of its own from here on.

    device  what the settings say: cpu or cuda
    Raises  InvalidSettings where there are fewer GPUs than processes
    """
    if expected_size() == 1:
        return ALONE
    import torch
    from accelerate import PartialState

    if device != "cpu" and (there := torch.cuda.device_count()) < expected_size():
        raise InvalidSettings(
            [f"Set processes to at most {there}, or device to cpu: each takes a GPU (it was {expected_size()})."]
        )
    state = PartialState(cpu=device == "cpu", timeout=LONGEST_WAIT)
    return Team(state.process_index, state.num_processes)


def leave(team: Team) -> None:
    """Say goodbye to the others."""
    if team.size > 1:
        from accelerate import PartialState

        PartialState().destroy_process_group()
