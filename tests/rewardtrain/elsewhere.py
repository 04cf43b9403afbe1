"""A device that is no CPU, for machines without one: its tensors compute on the CPU but refuse to meet the CPU's.

What a GPU would refuse, tensors of two devices in one operation, is refused here too. torch lets Python be the backend
of its spare device, for a whole process: so this is run as `python -m tests.rewardtrain.elsewhere WHAT`.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "elsewhere"


class MixedDevices(RuntimeError):
    """A tensor of the CPU met one from elsewhere."""


class Elsewhere(torch.Tensor):
    """A tensor of the other device; `inner` has its numbers, and shares memory where views do."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=f"{NAME}:0"
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(operation, *args, **(kwargs or {}))

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        return torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied


class Module(_DummyBackendModule):
    """What torch asks the module of a device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None:
        pass

    def _is_in_bad_fork(self) -> bool:
        return False


def set_up() -> None:
    """Let torch know the device; everything it is asked to do goes through `compute`."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    library = torch.library.Library("_", "IMPL")
    library.fallback(compute, "PrivateUse1")
    KEPT.extend([library, MadeThere()])
    KEPT[-1].__enter__()


class MadeThere(TorchFunctionMode):
    """Numbers of Python become a tensor on the CPU first, and back: there torch asks no backend written in Python."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.Tensor.tolist:
            return function(args[0].cpu())
        if function is torch.Tensor.__getitem__ and isinstance(args[1], list):
            return function(args[0], torch.tensor(args[1]).to(args[0].device))
        if function is torch.Tensor.new_tensor:
            function, device, kwargs = torch.tensor, args[0].device, {"dtype": args[0].dtype, **kwargs}
            args = args[1:]
        elif function in {torch.tensor, torch.as_tensor, torch.arange}:
            device = kwargs.pop("device", None)
        else:
            return function(*args, **kwargs)
        made = function(*args, **kwargs)
        return made if device is None else made.to(device)


KEPT: list[Any] = []
COPIES = {"copy_", "_copy_from", "_copy_from_and_resize", "_to_copy"}  # what may lead from one device to the other
COUNTED = {"operations": 0}


def compute(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Do an operation on the CPU. Raises MixedDevices where a GPU would refuse."""
    COUNTED["operations"] += 1
    tensors = [one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    strangers = [one for one in tensors if not isinstance(one, Elsewhere) and one.dim()]
    if strangers and operation._schema.name.partition("::")[2] not in COPIES:
        raise MixedDevices(f"{operation} got a tensor of the CPU, of shape {tuple(strangers[0].shape)}.")
    stays = torch.device(kwargs["device"] or NAME).type == NAME if "device" in kwargs else True
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu"), "pin_memory": False}
    outer = {id(one.inner if isinstance(one, Elsewhere) else one): one for one in tensors}
    inner_args, inner_kwargs = pytree.tree_map_only(Elsewhere, lambda one: one.inner, (args, kwargs))
    result = operation(*inner_args, **inner_kwargs)

    if resized := [one for one in tensors if isinstance(one, Elsewhere) and one.shape != one.inner.shape]:
        raise NotImplementedError(f"{operation} changes the shape of a tensor, here {tuple(resized[0].shape)}.")

    def outside(one: torch.Tensor) -> torch.Tensor:
        known = outer.get(id(one))
        return known if known is not None else Elsewhere(one) if stays else one

    return pytree.tree_map_only(torch.Tensor, outside, result)


# What is run there, and on the CPU to compare


def learned_rewards(device: str) -> dict[str, list[float]]:
    """What each step of reward-model trainings told: every weight trained, and adapters."""
    from rewardtrain.hyperparameters import LoraSettings, RewardModelSettings
    from rewardtrain.reward_model import RewardModel
    from rewardtrain.reward_training import train_reward_model
    from tests.rewardtrain.tiny import make_llama, make_tokenizer, planted, save_base

    found = {}
    for rank in (0, 2):
        with tempfile.TemporaryDirectory() as folder:
            base = save_base(Path(folder), make_llama(attn_implementation="eager"), make_tokenizer())
            settings = RewardModelSettings(epochs=1, early_stopping=True, lora=LoraSettings(rank=rank))
            reward_model = RewardModel.from_base(base, settings)
            moved(reward_model, reward_model.network, device)
            with mock.patch.object(RewardModel, "from_base", lambda *_, made=reward_model: made):
                trained = train_reward_model(
                    planted(16, seed=1), base=base, settings=settings, validation=planted(4, seed=2)
                )
        there(reward_model, device)
        found[f"rank {rank}"] = [number for step in trained.history for number in (step.loss, step.gradient_norm)]
    return found


def improved_policy(device: str) -> dict[str, list[float]]:
    """What each update of PPO told: every weight trained, adapters, and a prompt encoded for each reply."""
    from rewardtrain import ppo
    from rewardtrain.hyperparameters import LoraSettings
    from rewardtrain.lora import add_lora
    from rewardtrain.policy import PolicyWithValue, reference_policy
    from rewardtrain.rollouts import WeightedReward
    from rewardtrain.training_state import StateKeeper, weights_hash
    from tests.rewardtrain.tiny import make_llama, make_tokenizer
    from tests.rewardtrain.trainings import PPO, PROMPTS, count_e

    reward = WeightedReward("letter e", 1.0, count_e, mean=0.1, std=0.5)

    def run(rank: int, folder: str, **changes: Any) -> tuple[PolicyWithValue, ppo.PpoResult]:
        network = add_lora(make_llama(attn_implementation="eager"), LoraSettings(rank=rank))
        policy = PolicyWithValue(network, make_tokenizer())
        moved(policy, network, device)
        settings = dataclasses.replace(PPO, updates=2, **changes)
        trained = ppo.train_policy(
            PROMPTS, policy=policy, ref_policy=reference_policy(policy), settings=settings, rewards=[reward],
            keeper=StateKeeper(Path(folder), every_seconds=0),
        )  # fmt: skip
        there(policy, device)
        return policy, trained

    found = {}
    ways: dict[str, dict[str, Any]] = {"whole": {"rank": 0, "entropy_coef": 0.1}, "lora": {"rank": 2}}
    for name, options in (ways | {"apart": {"rank": 2, "share_prefix": False}}).items():
        with tempfile.TemporaryDirectory() as folder:
            policy, trained = run(folder=folder, **options)
            again, _ = run(folder=folder, **options)  # takes up the state of the first and has nothing left to do
        assert weights_hash(again) == weights_hash(policy)
        told = [dataclasses.astuple(step) for step in trained.steps]
        found[name] = [float(number) for step in told for number in step if isinstance(number, int | float)]
    return found


def moved(module: torch.nn.Module, network: Any, device: str) -> None:
    """Move a module; weights that two layers share are two after it, on a device written in Python alone."""
    from rewardtrain.lora import without_wrapper

    module.to(device)
    without_wrapper(network).tie_weights()


def there(module: torch.nn.Module, device: str) -> None:
    """Check that training left a module where it was."""
    kinds = {one.device.type for one in [*module.parameters(), *module.buffers()]}
    assert kinds == {torch.device(device).type}, kinds


def refused() -> None:
    """Check that the device refuses what a GPU would."""
    linear = torch.nn.Linear(2, 3).to(NAME)
    try:
        linear(torch.ones(1, 2))
    except MixedDevices:
        return
    raise AssertionError("a tensor of the CPU met one from elsewhere")


def main() -> None:
    """Run what is named on the CPU and elsewhere; ends with an error where the two differ."""
    run = {"rewards": learned_rewards, "policy": improved_policy}[sys.argv[1]]
    set_up()
    refused()
    here, found = run("cpu"), run(NAME)
    for name, numbers in here.items():
        torch.testing.assert_close(
            torch.tensor(found[name]), torch.tensor(numbers), atol=1e-4, rtol=1e-3, equal_nan=True, msg=name
        )
    sys.stdout.write(f"{COUNTED['operations']} operations elsewhere, {sum(map(len, here.values()))} figures alike\n")


if __name__ == "__main__":
    main()
