"""A project that wants replies chosen: the best of so many draws is shown, its record says how, nothing stops it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from feedback import generation as record
from feedback.invariants import violations
from feedback.models import Candidate, GenerationRequest, ModelVersion, Project
from rewardtrain import backends, generation
from rewardtrain import loaded_scorers as scorers_in_memory
from rewardtrain.backends.transformers_local import loaded_policies
from rewardtrain.checkpoints import folder_hash
from rewardtrain.errors import CannotChoose
from rewardtrain.generation import generate_candidates
from rewardtrain.hyperparameters import RewardModelSettings, RuleModelSettings, SamplingSettings
from rewardtrain.loaded_scorers import loaded_scorers
from rewardtrain.models import TrainingRun
from rewardtrain.policy import load_policy
from rewardtrain.reply_chooser import NOTHING_CHOOSES, Choice, draws_of, judges_of
from rewardtrain.reranked_replies import rule_scorer_of, score_draws
from rewardtrain.reranking import best_first
from rewardtrain.reward_model import RewardModel
from rewardtrain.rule_model import RuleModel
from rewardtrain.sampling import sample_replies
from rewardtrain.seeds import candidate_seed
from tests import make
from tests.rewardtrain import tiny
from tests.rewardtrain.test_generation import distinct, texts

pytestmark = [pytest.mark.django_db, pytest.mark.services]


class LastIsBest:
    """Chooses by the text, backwards; `asked` keeps what it was shown."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def best_first(self, messages: Sequence[Mapping[str, str]], found: Sequence[str]) -> list[Choice]:
        self.asked.append(list(found))
        order = sorted(range(len(found)), key=lambda place: found[place], reverse=True)
        return [Choice(place, {"score": -1.0}) for place in order]


@pytest.fixture
def chooser(monkeypatch: pytest.MonkeyPatch) -> LastIsBest:
    found = LastIsBest()
    monkeypatch.setattr(generation, "chooser_for", lambda project: found)
    return found


def reranked_request(draws: int = 3, **fields: Any) -> GenerationRequest:
    make.make_project(draws_per_reply=draws)
    return make.make_request(**fields)


def test_a_request_keeps_how_many_draws_its_project_wants() -> None:
    request = reranked_request(8)
    Project.objects.update(draws_per_reply=1)
    request.refresh_from_db()
    assert request.draws == 8


def test_each_reply_is_the_best_of_its_own_draws(speak: Any, chooser: LastIsBest) -> None:
    parrot = speak(distinct)
    request = reranked_request(3)
    generate_candidates(request.pk)
    assert texts(request) == [f"Reply {index} of draw 2 to request {request.pk}." for index in range(4)]
    asked = [(draw.index, draw.draw, draw.seed) for draw in parrot.passes[0][0].draws]
    assert asked == [(i, d, candidate_seed(request.pk, i, d)) for i in range(4) for d in range(3)]
    assert [len(found) for found in chooser.asked] == [3, 3, 3, 3]
    for candidate in request.candidates.all():
        assert (candidate.draw, candidate.seed) == (2, candidate_seed(request.pk, candidate.index, 2))
        assert candidate.reranking == {"draws": 3, "scored": 3, "score": -1.0, "passed_over": 0}
    assert Candidate.objects.count() == 4  # the draws that are not shown are not kept
    request.refresh_from_db()
    assert (request.state, request.unreranked_because) == ("done", "")
    assert list(violations()) == []


def test_a_best_that_a_sibling_has_said_gives_way_to_the_next_best(speak: Any, chooser: LastIsBest) -> None:
    def alike(job: Any, draw: backends.Draw) -> str:
        return "Water it." if draw.draw == 2 else distinct(job, draw)

    parrot = speak(alike)
    request = reranked_request(3)
    generate_candidates(request.pk)
    assert texts(request)[0] == "Water it."
    assert texts(request)[1:] == [f"Reply {index} of draw 1 to request {request.pk}." for index in (1, 2, 3)]
    assert [one.reranking["passed_over"] for one in request.candidates.order_by("index")] == [0, 1, 1, 1]
    assert len(parrot.passes) == 1


def test_where_all_draws_are_copies_as_many_are_drawn_again(speak: Any, chooser: LastIsBest) -> None:
    parrot = speak(lambda job, draw: "Water it." if draw.index < 2 and draw.draw < 3 else distinct(job, draw))
    request = reranked_request(3)
    generate_candidates(request.pk)
    assert [[(draw.index, draw.draw) for draw in jobs[0].draws] for jobs in parrot.passes[1:]] == [
        [(1, 3), (1, 4), (1, 5)]
    ]
    again = request.candidates.get(index=1)
    assert (again.draw, again.seed) == (5, candidate_seed(request.pk, 1, 5))
    assert draws_of(again) == [(draw, candidate_seed(request.pk, 1, draw)) for draw in (3, 4, 5)]


def test_empty_draws_are_not_scored_and_not_shown(speak: Any, chooser: LastIsBest) -> None:
    speak(lambda job, draw: "" if draw.draw == 2 else distinct(job, draw))
    request = reranked_request(3)
    generate_candidates(request.pk)
    assert [len(found) for found in chooser.asked] == [2, 2, 2, 2]
    assert {one.reranking["scored"] for one in request.candidates.all()} == {2}


def test_a_backend_that_gives_some_draws_is_asked_for_the_others(speak: Any, chooser: LastIsBest) -> None:
    parrot = speak(distinct)
    whole = parrot._say

    def first_of_each_index(job: Any, sampling: Any) -> Iterator[Any]:
        seen: set[int] = set()
        for made in whole(job, sampling):
            if made.draw.index not in seen:
                seen.add(made.draw.index)
                yield made

    parrot._say = first_of_each_index
    request = reranked_request(3)
    generate_candidates(request.pk)
    assert len(parrot.passes) == 3
    assert {one.draw for one in request.candidates.all()} == {2}


def test_what_a_worker_before_this_one_chose_is_kept(speak: Any, chooser: LastIsBest) -> None:
    parrot = speak(distinct)
    request = reranked_request(3)
    claimed = generation.queue.claim(GenerationRequest, request.pk)
    record.store_candidate(claimed, index=0, text="Kept.", seed=1)
    generation.queue.fail(claimed, "It died.", retry_after=0)
    generate_candidates(request.pk)
    assert texts(request)[0] == "Kept."
    assert {draw.index for draw in parrot.passes[0][0].draws} == {1, 2, 3}


def test_without_models_one_reply_each_is_drawn_and_the_request_says_so(speak: Any) -> None:
    parrot = speak(distinct)
    request = reranked_request(8)
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert [len(jobs[0].draws) for jobs in parrot.passes] == [4]
    assert (request.state, request.unreranked_because) == ("done", NOTHING_CHOOSES)
    assert {str(one.reranking) for one in request.candidates.all()} == {"{}"}


def test_at_temperature_zero_there_is_nothing_to_choose_from(speak: Any, chooser: LastIsBest) -> None:
    parrot = speak(distinct)
    request = reranked_request(8, sampling={"temperature": 0})
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert len(parrot.passes[0][0].draws) == 4
    assert "temperature 0" in request.unreranked_because


def test_a_project_that_wants_one_draw_is_not_told_of_what_it_did_not_ask_for(speak: Any) -> None:
    speak(distinct)
    wanted, plain = reranked_request(8), make.make_request(make.make_dialogue(text="Another question?"), draws=1)
    generate_candidates(wanted.pk)
    wanted.refresh_from_db(), plain.refresh_from_db()
    assert (wanted.state, plain.state) == ("done", "done")
    assert (bool(wanted.unreranked_because), plain.unreranked_because) == (True, "")


def test_a_scorer_that_fails_midway_costs_no_reply(speak: Any, chooser: LastIsBest) -> None:
    def refuse(messages: Any, found: Any) -> Any:
        raise CannotChoose("The replies could not be scored: RuntimeError: on fire")

    chooser.best_first = refuse
    speak(distinct)
    request = reranked_request(3)
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert texts(request) == [f"Reply {index} of draw 0 to request {request.pk}." for index in range(4)]
    assert (request.state, "on fire" in request.unreranked_because) == ("done", True)
    assert {one.reranking["draws"] for one in request.candidates.all()} == {3}


# With networks


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A policy, a reward model and a rule model of tiny random networks."""
    home = tmp_path_factory.mktemp("models")
    base = tiny.save_base(home / "policy", tiny.make_llama(), tiny.make_tokenizer())
    RewardModel.from_base(base, RewardModelSettings()).save(_made(home / "preference"))
    RuleModel.from_base(base, RuleModelSettings()).save(_made(home / "rule"))
    return {name: home / name for name in ("policy", "preference", "rule")}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture
def project(folders: dict[str, Path], settings: Any) -> Iterator[Project]:
    """A project that wants the best of three, with everything that chooses."""
    settings.GENERATION_DEVICE = "cpu"
    project = make.make_project(with_policy=False, draws_per_reply=3, candidates_per_turn=2, max_new_tokens=8)
    for kind, folder in folders.items():
        version = make.make_model(project, kind=kind, location=str(folder), content_hash=folder_hash(folder))
        if kind == "policy":
            Project.objects.filter(pk=project.pk).update(policy=version)
    make.make_rule_set(project)
    project.refresh_from_db()
    loaded_scorers.forget_all()
    yield project
    loaded_scorers.forget_all()
    loaded_policies.forget_all()


def test_a_choice_can_be_made_again_from_its_record(project: Project, folders: dict[str, Path]) -> None:
    request = make.make_request(make.make_dialogue(project))
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert (request.state, request.unreranked_because) == ("done", "")
    policy = load_policy(folders["policy"])
    prompt = request.dialogue.messages()
    rules = [rule.wording for rule in project.rule_sets.get(number=1).rules.order_by("position")]
    before: set[str] = set()
    for candidate in request.candidates.order_by("index"):
        names = SamplingSettings().to_dict()
        sampled = SamplingSettings.from_dict({name: candidate.sampling[name] for name in names})
        draws = draws_of(candidate)
        again = sample_replies(
            policy, policy.tokenizer, [prompt] * 3, settings=sampled, seeds=[seed for _, seed in draws]
        )
        found = [generation.storable(reply.text) for reply in again]
        (scores,) = score_draws(
            [prompt], [found], scorer=RewardModel.load(folders["preference"]).scores,
            rule_scorer=rule_scorer_of(RuleModel.load(folders["rule"])), rules_of_prompt=[rules],
        )  # fmt: skip
        order = [place for place in best_first([one.score for one in scores]) if found[place] not in before]
        assert candidate.text == found[order[0]]
        assert candidate.draw == draws[order[0]][0]
        kept = candidate.reranking
        assert kept["score"] == pytest.approx(scores[order[0]].score, abs=1e-4)
        assert (kept["draws"], kept["rule_set"], sorted(kept["followed"])) == (3, 1, ["r1", "r2"])
        judges = judges_of(project)
        assert judges.reward_model is not None and judges.rule_model is not None
        assert (kept["reward_model"], kept["rule_model"]) == (judges.reward_model.pk, judges.rule_model.pk)
        before.add(candidate.text)


def test_scorers_are_read_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = scorers_in_memory.verified_folder

    def noted(version: ModelVersion) -> Any:
        read.append(version.kind)
        return real(version)

    monkeypatch.setattr(scorers_in_memory, "verified_folder", noted)
    for text in ("One?", "Another?"):
        generate_candidates(make.make_request(make.make_dialogue(project, text=text)).pk)
    assert sorted(read) == ["preference", "rule"]


@pytest.mark.parametrize("kind", ["preference", "rule"])
def test_a_broken_scorer_never_stops_replies(project: Project, kind: str) -> None:
    ModelVersion.objects.filter(kind=kind).update(content_hash="ab" * 32)
    request = make.make_request(make.make_dialogue(project))
    generate_candidates(request.pk)
    request.refresh_from_db()
    assert (request.state, request.candidates.count()) == ("done", 2)
    assert "cannot be read, so nothing chooses" in request.unreranked_because
    assert {str(one.reranking) for one in request.candidates.all()} == {"{}"}


# Who chooses


def test_the_newest_models_in_use_choose_and_never_the_second_opinion() -> None:
    project = make.make_project()
    make.make_rule_set(project)
    first, second, _ = (make.make_model(project, kind="preference") for _ in range(3))
    retired = make.make_model(project, kind="preference", state="retired")
    opinion = ModelVersion.objects.get(project=project, kind="preference", number=3)
    TrainingRun.objects.create(project=project, kind="second_reward_model", produced=opinion)
    assert judges_of(project).reward_model == second
    assert judges_of(project).missing == (
        "There is no rule model with published rules yet, so the reward model alone chooses."
    )
    rule_model = make.make_model(project, kind="rule")
    assert (judges_of(project).rule_model, judges_of(project).missing) == (rule_model, "")
    assert retired.number > first.number


def test_a_rule_model_without_published_rules_has_nothing_to_ask() -> None:
    project = make.make_project()
    make.make_model(project, kind="rule")
    make.make_rule_set(project, published=False)
    assert not judges_of(project)
    assert judges_of(project).missing == NOTHING_CHOOSES
