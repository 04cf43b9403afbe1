"""Going on after a kill: to the same weights, from the newest complete state, or not at all."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import math
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from rewardtrain import training_state
from rewardtrain.errors import (
    CheckpointDamaged,
    CheckpointMissing,
    CheckpointNotWritten,
    TrainingDiverged,
    WrongCheckpoint,
)
from rewardtrain.hyperparameters import LoraSettings
from rewardtrain.lora import add_lora
from rewardtrain.training_state import StateKeeper, TrainingState, weights_hash
from tests.rewardtrain.tiny import make_gpt2, make_llama, make_tokenizer, save_base
from tests.rewardtrain.trainings import PPO, REWARD, SETTINGS, TRAINERS, learn_policy, learn_rewards, save_bases


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    return save_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(params=TRAINERS)
def kind(request) -> str:
    return request.param


def alike(one: Any, other: Any) -> bool:
    """Equal to the last bit, where a figure that was not measured (NaN) equals itself."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


class Stop(Exception):
    """Raised where a run shall end early."""


class StopsAfter(StateKeeper):
    """Ends the run right after the state of one step is on the disk."""

    def __init__(self, folder: Path, step: int, **more: Any):
        def stop(saved: int) -> None:
            if saved == step:
                raise Stop

        super().__init__(folder, every_seconds=0, on_saved=stop, **more)


def stopped_run(kind: str, base: Path, folder: Path, step: int, **more: Any) -> None:
    with pytest.raises(Stop):
        TRAINERS[kind](base, StopsAfter(folder, step, **more))


# Going on


def test_a_resumed_run_ends_with_the_weights_and_the_history_of_one_that_was_not_stopped(kind, bases, tmp_path):
    whole = TRAINERS[kind](bases[kind], None)
    assert whole.begun == (len(whole.told), 0)
    for step in (1, 3):
        stopped_run(kind, bases[kind], tmp_path / str(step), step)
        resumed = TRAINERS[kind](bases[kind], StateKeeper(tmp_path / str(step), must_resume=True))
        assert resumed.weights == whole.weights
        assert alike(resumed.history, whole.history)
        assert resumed.begun == (len(whole.told), step)
        assert resumed.told == whole.told[step:]  # nothing is told twice


def test_saving_changes_nothing(kind, bases, tmp_path):
    keeper = StateKeeper(tmp_path, every_seconds=0)
    assert TRAINERS[kind](bases[kind], keeper).weights == TRAINERS[kind](bases[kind], None).weights


def test_resuming_a_run_that_was_over_trains_no_more(kind, bases, tmp_path):
    whole = TRAINERS[kind](bases[kind], StateKeeper(tmp_path))
    again = TRAINERS[kind](bases[kind], StateKeeper(tmp_path, must_resume=True))
    assert (again.weights, again.told) == (whole.weights, [])


def test_adapters_are_resumed_as_well(tmp_path):
    def lora() -> Any:
        return add_lora(make_llama(), LoraSettings(rank=4), seed=1)

    whole = learn_policy(tmp_path, None, network=lora())
    with pytest.raises(Stop):
        learn_policy(tmp_path, StopsAfter(tmp_path, 2), network=lora())
    saved = training_state.load_checkpoint(tmp_path / "step-00000002")
    assert (saved / training_state.TENSORS).stat().st_size < 100_000  # adapters and value head, not the base
    assert learn_policy(tmp_path, StateKeeper(tmp_path), network=lora()).weights == whole.weights


def test_a_run_that_stopped_early_stays_stopped(bases, tmp_path):
    settings = dataclasses.replace(REWARD, epochs=4, patience=1, learning_rate=3e-2)
    whole = learn_rewards(bases["reward model"], StateKeeper(tmp_path, every_seconds=0), settings)
    assert len(whole.told) < whole.begun[0]
    again = learn_rewards(bases["reward model"], StateKeeper(tmp_path, must_resume=True), settings)
    assert (again.weights, again.told) == (whole.weights, [])


def test_the_number_of_threads_is_taken_from_the_state(bases, tmp_path):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        stopped_run("policy", bases["policy"], tmp_path, 1)
        torch.set_num_threads(2)
        learn_policy(bases["policy"], StateKeeper(tmp_path))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


# What it goes on from


def test_the_two_newest_states_are_kept(bases, tmp_path):
    learn_policy(bases["policy"], StateKeeper(tmp_path, every_seconds=0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005", "step-00000006"]


def test_only_the_last_state_is_kept_when_it_was_too_early_for_others(bases, tmp_path):
    told = []
    learn_policy(bases["policy"], StateKeeper(tmp_path, every_seconds=3600, on_saved=told.append))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000006"]
    assert told == [6]


def test_a_damaged_newest_state_is_passed_over(kind, bases, tmp_path):
    whole = TRAINERS[kind](bases[kind], None)
    stopped_run(kind, bases[kind], tmp_path, 3)
    damage(tmp_path / "step-00000003" / training_state.TENSORS)
    resumed = TRAINERS[kind](bases[kind], StateKeeper(tmp_path))
    assert resumed.begun[1] == 2
    assert resumed.weights == whole.weights


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_with_nothing_to_go_on_from_it_stops_and_does_not_start_anew(kind, bases, tmp_path):
    with pytest.raises(CheckpointMissing, match="no saved state .* Start a new run"):
        TRAINERS[kind](bases[kind], StateKeeper(tmp_path / "typo", must_resume=True))


@pytest.mark.parametrize("harm", ["truncated", "no manifest", "no values", "values that say nothing"])
def test_with_damaged_states_alone_it_stops_and_does_not_start_anew(harm, bases, tmp_path):
    stopped_run("policy", bases["policy"], tmp_path, 1)
    folder = tmp_path / "step-00000001"
    if harm == "truncated":
        os.truncate(folder / training_state.TENSORS, 100)
    elif harm == "no manifest":
        (folder / "manifest.json").unlink()
    elif harm == "no values":
        (folder / training_state.VALUES).unlink()
    else:  # a whole checkpoint, but not of a trainer
        shutil.rmtree(folder)
        training_state.save_checkpoint(folder, {training_state.VALUES: b"{}", training_state.TENSORS: b""})
    with pytest.raises(CheckpointDamaged, match="step-00000001"):
        learn_policy(bases["policy"], StateKeeper(tmp_path))


def other_settings(kind: str, base: Path, keeper: StateKeeper) -> None:
    TRAINERS[kind](base, keeper, dataclasses.replace(SETTINGS[kind], learning_rate=1e-5))


def other_tokenizer(kind: str, base: Path, keeper: StateKeeper) -> None:
    shutil.copytree(base, base.parent / "other")
    make_tokenizer(chat_template=None).save_pretrained(str(base.parent / "other"))
    (base.parent / "other" / "chat_template.jinja").unlink(missing_ok=True)
    learn_rewards(base.parent / "other", keeper)


def other_base(kind: str, base: Path, keeper: StateKeeper) -> None:
    if kind == "policy":
        learn_policy(base, keeper, network=make_llama(seed=7))
    else:
        TRAINERS[kind](save_base(base.parent / "seven", make_gpt2(seed=7, dropout=0.1), make_tokenizer()), keeper)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (other_settings, "settings.learning_rate was"),
        (other_base, "start was"),
    ],
)
def test_what_something_else_saved_is_refused_by_name(kind, other, named, bases, tmp_path):
    stopped_run(kind, bases[kind], tmp_path, 1)
    with pytest.raises(WrongCheckpoint, match=named):
        other(kind, bases[kind], StateKeeper(tmp_path))


def test_other_tokens_are_refused(bases, tmp_path):
    stopped_run("reward model", bases["reward model"], tmp_path, 1)
    with pytest.raises(WrongCheckpoint, match="comparisons was"):
        other_tokenizer("reward model", bases["reward model"], StateKeeper(tmp_path))


def test_another_runs_state_is_refused(bases, tmp_path):
    stopped_run("policy", bases["policy"], tmp_path, 1, belongs_to={"run": 7})
    with pytest.raises(WrongCheckpoint, match="run was 7, here it is 8"):
        learn_policy(bases["policy"], StateKeeper(tmp_path, belongs_to={"run": 8}))


def test_how_often_it_is_saved_may_change(bases, tmp_path):
    stopped_run("policy", bases["policy"], tmp_path, 1)
    resumed = learn_policy(bases["policy"], StateKeeper(tmp_path), dataclasses.replace(PPO, checkpoint_seconds=99.0))
    assert resumed.begun[1] == 1


def test_weights_of_another_shape_are_refused():
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)
    tensors = training_state.capture(one, torch.optim.AdamW(one.parameters()))
    with pytest.raises(CheckpointDamaged, match="not those of this network"):
        training_state.restore(other, torch.optim.AdamW(other.parameters()), tensors)


def test_another_torch_is_said_in_the_log(bases, tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(training_state, "machine", lambda: {"torch": "1.0", "threads": 1})
        stopped_run("policy", bases["policy"], tmp_path, 1)
    learn_policy(bases["policy"], StateKeeper(tmp_path))
    assert "another torch" in caplog.text


# A disk that is full


@pytest.fixture
def small_files():
    """Every file this process writes ends at 20 kB, as on a disk that runs full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before if size is None else (size, before[1]))

    yield limit
    limit(None)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_stops_the_run_with_the_reason_and_the_state_before_stays(kind, bases, tmp_path, small_files):
    whole = TRAINERS[kind](bases[kind], None)

    def fills_up(saved: int) -> None:
        if saved == 2:
            small_files(20_000)

    with pytest.raises(CheckpointNotWritten, match=r"after step 3 could not be written .* goes on from step 2"):
        TRAINERS[kind](bases[kind], StateKeeper(tmp_path, every_seconds=0, on_saved=fills_up))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]
    small_files(None)
    resumed = TRAINERS[kind](bases[kind], StateKeeper(tmp_path, must_resume=True))
    assert resumed.weights == whole.weights


def test_a_disk_full_from_the_start_says_that_nothing_is_there_yet(bases, tmp_path, small_files):
    small_files(20_000)
    with pytest.raises(CheckpointNotWritten, match="starts again"):
        learn_policy(bases["policy"], StateKeeper(tmp_path, every_seconds=0))
    small_files(None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_whatever_the_disk_says_is_the_reason(error, tmp_path, monkeypatch):
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(error, os.strerror(error))

    keeper = StateKeeper(tmp_path, every_seconds=0)
    monkeypatch.setattr(training_state, "save_checkpoint", refuse)
    with pytest.raises(CheckpointNotWritten, match=os.strerror(error)):
        keeper.after_step(1, 2, lambda: TrainingState(1, {}))


# Numbers that are none


def test_a_network_with_a_weight_that_is_none_is_never_handed_on(kind, bases, monkeypatch):
    def poisoned(optimizer: Any, *args: Any, **kwargs: Any) -> None:
        with torch.no_grad():
            optimizer.param_groups[0]["params"][0].view(-1)[0] = math.nan

    monkeypatch.setattr(torch.optim.AdamW, "step", poisoned)
    one_step = {
        "reward model": {"epochs": 0.2}, "rule model": {"epochs": 0.2},
        "policy": {"updates": 1, "passes": 1, "minibatch_size": 8},
    }  # fmt: skip
    with pytest.raises(TrainingDiverged, match="no number"):
        TRAINERS[kind](bases[kind], None, dataclasses.replace(SETTINGS[kind], **one_step[kind]))


def test_a_hash_tells_names_shapes_and_values_apart():
    plain = torch.nn.Linear(2, 3)
    assert weights_hash(plain) == weights_hash(plain)
    changed = torch.nn.Linear(2, 3)
    changed.load_state_dict(plain.state_dict())
    assert weights_hash(changed) == weights_hash(plain)
    with torch.no_grad():
        changed.bias[0] += 1e-6
    assert weights_hash(changed) != weights_hash(plain)
    assert weights_hash(torch.nn.Linear(3, 2)) != weights_hash(plain)
    assert weights_hash(plain.to(torch.bfloat16)) != weights_hash(changed)
    assert len(weights_hash(torch.nn.Linear(0, 1, bias=False))) == len(hashlib.sha256().hexdigest())
