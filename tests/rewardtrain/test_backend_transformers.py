"""Policies run by the worker itself: verified when loaded, batched, and each of their replies can be made again."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from feedback.errors import GenerationFailed
from feedback.models import GenerationRequest, ModelVersion, Project
from rewardtrain import model_files, sampling
from rewardtrain.backends import Draw, FailedJob, GenerationJob, MadeReply, transformers_local
from rewardtrain.backends.transformers_local import TransformersLocal, chosen_device, loaded_policies
from rewardtrain.checkpoints import folder_hash
from rewardtrain.errors import ModelRefused
from rewardtrain.generation import generate_candidates
from rewardtrain.policy import load_policy
from rewardtrain.sampling import SamplingSettings, sample_replies
from tests import make
from tests.rewardtrain import tiny

SHORT = {"temperature": 1.0, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies") / "one"
    return tiny.save_base(folder, tiny.make_llama(seed=1), tiny.make_tokenizer())


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies") / "other"
    return tiny.save_base(folder, tiny.make_llama(seed=2), tiny.make_tokenizer())


@pytest.fixture(autouse=True)
def nothing_in_memory(settings: Any) -> Iterator[None]:
    settings.GENERATION_DEVICE = "cpu"
    loaded_policies.forget_all()
    yield
    loaded_policies.forget_all()


def version_of(folder: Path | str, *, pk: int = 1, content_hash: str = "") -> ModelVersion:
    return ModelVersion(pk=pk, kind="policy", number=1, location=str(folder), content_hash=content_hash)


def job(key: int, text: str = "Why?", count: int = 4) -> GenerationJob:
    draws = tuple(Draw(index, 0, 1000 * key + index) for index in range(count))
    return GenerationJob(key, [{"role": "user", "content": text}], draws)


def made(folder: Path, *jobs: GenerationJob, **sampled: Any) -> list[Any]:
    return list(TransformersLocal(version_of(folder)).generate(jobs, SHORT | sampled))


def served_by(folder: Path, name: str = "plant-desk") -> Project:
    """A project whose policy lies in a folder, at most 12 tokens a reply."""
    project = make.make_project(name)
    Project.objects.filter(pk=project.pk).update(max_new_tokens=12)
    ModelVersion.objects.filter(pk=project.policy_id).update(location=str(folder), content_hash=folder_hash(folder))
    return project


def answered(project: Project, text: str = "Why are my basil leaves yellow?") -> GenerationRequest:
    request = make.make_request(make.make_dialogue(project, text=text))
    generate_candidates(request.pk)
    request.refresh_from_db()
    return request


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


# Made, and made again


def test_replies_say_what_exactly_made_them(policy_folder: Path) -> None:
    replies = made(policy_folder, job(1))
    assert [reply.draw.index for reply in replies] == [0, 1, 2, 3]
    assert {reply.model_hash for reply in replies} == {folder_hash(policy_folder)}
    for reply in replies:
        assert reply.seed == reply.draw.seed
        assert 1 <= reply.token_count <= 12
        assert reply.mean_logprob < 0
        assert reply.finish_reason == ("length" if reply.token_count == 12 else "stop")
        assert reply.sampling == {
            "temperature": 1.0,
            "max_new_tokens": 12,
            "top_p": 1.0,
            "top_k": 0,
            "max_prompt_tokens": 256 - 12,
            "device": "cpu",
            "dtype": "float32",
        }


@pytest.mark.django_db
def test_every_stored_reply_can_be_made_again_from_its_record(policy_folder: Path) -> None:
    """25 dialogues of 4 replies, made in batches; each again by itself, from nothing but its row."""
    project = served_by(policy_folder)
    waiting = [make.make_request(make.make_dialogue(project, text=f"Question {n}{'?' * n}")) for n in range(25)]
    while generate_candidates(waiting[0].pk):
        pass
    policy = load_policy(policy_folder)
    again = 0
    for candidate in (candidate for request in waiting for candidate in request.candidates.all()):
        assert candidate.model_hash == folder_hash(policy_folder)
        settings = {name: candidate.sampling[name] for name in SamplingSettings().to_dict()}
        messages = candidate.dialogue.messages()[: candidate.after_position + 1]
        (reply,) = sample_replies(
            policy,
            policy.tokenizer,
            [messages],
            settings=SamplingSettings.from_dict(settings),
            seeds=[candidate.seed],
        )
        assert reply.text.replace("\x00", "").strip() == candidate.text
        assert reply.mean_logprob == pytest.approx(candidate.mean_logprob, abs=1e-5)
        again += 1
    assert again == 100


def test_a_reply_does_not_depend_on_what_it_was_batched_with(policy_folder: Path, settings: Any) -> None:
    jobs = [job(key, "Why is it so? " * key) for key in range(1, 6)]
    settings.GENERATION_ROWS_AT_ONCE = 64
    together = {(reply.key, reply.draw.index): reply.text for reply in made(policy_folder, *jobs)}
    settings.GENERATION_ROWS_AT_ONCE = 3
    apart = {(reply.key, reply.draw.index): reply.text for reply in made(policy_folder, *jobs)}
    assert together == apart
    assert len(together) == 20


def test_a_dialogue_is_encoded_once_for_its_replies(policy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    real = sampling.encode_ragged

    def counting(trunk: Any, prompts: Any, **options: Any) -> Any:
        encoded.append(len(prompts))
        return real(trunk, prompts, **options)

    monkeypatch.setattr(sampling, "encode_ragged", counting)
    made(policy_folder, job(1, "One?"), job(2, "Two?"), job(3, "Three?"))
    assert encoded == [3]


def test_replies_come_batch_by_batch_the_oldest_first(policy_folder: Path, settings: Any) -> None:
    settings.GENERATION_ROWS_AT_ONCE = 4
    replies = TransformersLocal(version_of(policy_folder)).generate([job(7), job(8)], SHORT)
    assert next(replies).key == 7
    assert [reply.key for reply in replies] == [7, 7, 7, 8, 8, 8, 8]


def test_a_dialogue_too_long_is_cut_at_a_turn_and_the_reply_says_so(policy_folder: Path) -> None:
    turns = [{"role": "user", "content": "x" * 100}, {"role": "assistant", "content": "y" * 100}] * 2
    long_job = GenerationJob(1, [*turns, {"role": "user", "content": "And now?"}], (Draw(0, 0, 5),))
    (reply,) = made(policy_folder, long_job)
    assert reply.sampling["turns_cut"] == 2
    (short,) = made(policy_folder, GenerationJob(1, [*turns[2:], long_job.messages[-1]], (Draw(0, 0, 5),)))
    assert reply.text == short.text


# Which model speaks


@pytest.mark.django_db
def test_another_policy_speaks_from_the_next_request_on(policy_folder: Path, other_folder: Path) -> None:
    project = served_by(policy_folder)
    first = answered(project)
    project.policy = make.make_model(project, location=str(other_folder), content_hash=folder_hash(other_folder))
    project.save()
    second = answered(project, "And my mint?")
    assert {candidate.model_hash for candidate in first.candidates.all()} == {folder_hash(policy_folder)}
    assert {candidate.model_hash for candidate in second.candidates.all()} == {folder_hash(other_folder)}


@pytest.mark.django_db
def test_a_request_asked_before_a_promotion_is_answered_by_whom_it_was_asked_of(
    policy_folder: Path, other_folder: Path
) -> None:
    project = served_by(policy_folder)
    request = make.make_request(make.make_dialogue(project))
    project.policy = make.make_model(project, location=str(other_folder))
    project.save()
    generate_candidates(request.pk)
    assert {candidate.model_hash for candidate in request.candidates.all()} == {folder_hash(policy_folder)}


def test_equal_files_are_in_memory_once(policy_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(policy_folder, tmp_path / "copy")
    known = folder_hash(policy_folder)
    one = loaded_policies.get(version_of(policy_folder, pk=1, content_hash=known))
    assert loaded_policies.get(version_of(copy, pk=2, content_hash=known)) is one


def test_only_a_few_policies_stay_in_memory(policy_folder: Path, tmp_path: Path, settings: Any) -> None:
    settings.GENERATION_MODELS_IN_MEMORY = 2
    folders = [shutil.copytree(policy_folder, tmp_path / str(n)) for n in range(3)]
    first = loaded_policies.get(version_of(folders[0], pk=1))
    loaded_policies.get(version_of(folders[1], pk=2))
    assert loaded_policies.get(version_of(folders[0], pk=1)) is first
    loaded_policies.get(version_of(folders[2], pk=3))
    assert len(loaded_policies) == 2
    assert loaded_policies.get(version_of(folders[0], pk=1)) is first  # the one not used for longest went


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no .safetensors weights"),
        (lambda folder: (folder / "weights.bin").write_bytes(b"x"), "weights.bin may run code"),
        (lambda folder: (folder / "modeling.py").write_text("print()"), "modeling.py is code"),
        (lambda folder: shutil.rmtree(folder), "There is no model folder"),
        (lambda folder: cut_short(folder / "model.safetensors"), "cannot be loaded"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "unheard"}'), "cannot be loaded"),
    ],
)
def test_a_folder_that_cannot_be_trusted_is_refused_by_name(
    policy_folder: Path, tmp_path: Path, spoil: Any, reason: str
) -> None:
    folder = shutil.copytree(policy_folder, tmp_path / "spoilt")
    spoil(folder)
    with pytest.raises(GenerationFailed, match=reason) as refused:
        loaded_policies.get(version_of(folder))
    assert refused.value.permanent


@pytest.mark.django_db
def test_changed_files_are_refused_with_advice(policy_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(policy_folder, tmp_path / "changed")
    project = served_by(folder)
    with (folder / "config.json").open("a") as config:
        config.write("\n")
    request = answered(project)
    assert request.state == "failed"
    assert "are not those it was made with" in request.error


@pytest.mark.django_db
def test_damaged_weights_fail_with_the_reason(tmp_path: Path) -> None:
    network = tiny.make_llama()
    with torch.no_grad():
        network.model.norm.weight.fill_(float("nan"))
    request = answered(served_by(tiny.save_base(tmp_path / "nan", network, tiny.make_tokenizer())))
    assert request.state == "failed"
    assert request.candidates.count() == 0


# One bad row


def test_one_bad_row_harms_no_other(policy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = transformers_local._sample

    def fails_for_three(loaded: Any, rows: Any, wanted: Any) -> Any:
        if any(row.job.key == 3 for row in rows):
            raise RuntimeError("index out of range in self")
        return real(loaded, rows, wanted)

    monkeypatch.setattr(transformers_local, "_sample", fails_for_three)
    results = made(policy_folder, *(job(key, f"Question {key}?") for key in range(6)))
    assert {result.key for result in results if isinstance(result, FailedJob)} == {3}
    assert sorted(result.key for result in results if isinstance(result, MadeReply)) == sorted([0, 1, 2, 4, 5] * 4)


def test_a_dialogue_that_cannot_be_encoded_harms_no_other(policy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = transformers_local.encode_for_sampling

    def fails_for_two(policy: Any, tokenizer: Any, turns: Any, *more: Any) -> Any:
        if turns[0]["content"] == "2":
            raise ValueError("no tokens")
        return real(policy, tokenizer, turns, *more)

    monkeypatch.setattr(transformers_local, "encode_for_sampling", fails_for_two)
    results = made(policy_folder, job(1, "1", count=1), job(2, "2", count=1), job(3, "3", count=1))
    assert [(type(result), result.key) for result in results] == [(FailedJob, 2), (MadeReply, 1), (MadeReply, 3)]


def test_numbers_that_are_none_fail_for_good(policy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = transformers_local.sample_replies

    def damaged(*args: Any, **options: Any) -> Any:
        return [dataclasses.replace(reply, mean_logprob=float("nan")) for reply in real(*args, **options)]

    monkeypatch.setattr(transformers_local, "sample_replies", damaged)
    (failed,) = made(policy_folder, job(1, count=1))
    assert failed.error.permanent
    assert "not finite" in failed.error.message


def test_a_batch_too_large_for_the_memory_is_halved(policy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, sizes = transformers_local.sample_replies, []

    def small_memory(policy: Any, tokenizer: Any, prompts: Any, **options: Any) -> Any:
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return real(policy, tokenizer, prompts, **options)

    monkeypatch.setattr(transformers_local, "sample_replies", small_memory)
    results = made(policy_folder, job(1))
    assert sizes == [4, 2, 2]
    assert [type(result) for result in results] == [MadeReply] * 4


def test_too_little_memory_for_one_reply_is_said_and_may_pass(
    policy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*args: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(transformers_local, "sample_replies", no_memory)
    (failed,) = made(policy_folder, job(1, count=1))
    assert "not enough memory" in failed.error.message
    assert not failed.error.permanent


@pytest.mark.parametrize(
    ("sampled", "reason"),
    [
        ({"max_new_tokens": 256}, "leaves no room for a dialogue"),
        ({"temperature": -1}, "temperature"),
        ({"beams": 4}, "beams"),
        ({"top_p": 0}, "top_p"),
    ],
)
def test_settings_that_cannot_work_are_refused_for_good(policy_folder: Path, sampled: Any, reason: str) -> None:
    with pytest.raises(GenerationFailed, match=reason) as refused:
        made(policy_folder, job(1), **sampled)
    assert refused.value.permanent


# Where files lie


def test_relative_locations_lie_in_the_data_folder(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    assert model_files.folder_at("policy-2") == tmp_path / "models" / "policy-2"
    tiny.save_base(tmp_path / "models" / "policy-2", tiny.make_llama(), tiny.make_tokenizer())
    assert model_files.model_hash("policy-2") == folder_hash(tmp_path / "models" / "policy-2")
    assert model_files.folder_at("runs/7/policy") == tmp_path / "models" / "runs" / "7" / "policy"
    assert model_files.folder_at("/srv/models/one") == Path("/srv/models/one")
    assert model_files.folder_at(model_files.STARTER_LOCATION).parts[-3:] == ("rewardtrain", "starter", "policy")


@pytest.mark.parametrize("location", ["../secrets", "a/../../b", "", "starter:../../feedback", "starter:"])
def test_locations_that_lead_elsewhere_are_refused(settings: Any, tmp_path: Path, location: str) -> None:
    settings.DATA_DIR = tmp_path
    with pytest.raises(ModelRefused):
        model_files.folder_at(location)


def test_a_served_model_has_no_files_here() -> None:
    version = ModelVersion(kind="policy", number=1, backend="openai", location="desk-7b", endpoint="http://a:1/v1")
    with pytest.raises(ModelRefused, match="run by a server"):
        model_files.model_folder(version)


def test_the_device_is_as_set_or_the_best_there_is(settings: Any) -> None:
    settings.GENERATION_DEVICE = "auto"
    assert chosen_device() == ("cuda" if torch.cuda.is_available() else "cpu")
    settings.GENERATION_DEVICE = "cuda:1"
    assert chosen_device() == "cuda:1"
