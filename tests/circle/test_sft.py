"""Demonstrations → a policy by SFT → gate → promotion, with rows and files; and PPO that mixes them in."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from feedback import demonstrations_wanted
from feedback.models import AuditEntry, ModelVersion, Snapshot
from rewardtrain import promotions, rounds, runs
from rewardtrain.demonstrations_to_learn import TooFewDemonstrations, ready
from rewardtrain.models import Round, TrainingRun
from rewardtrain.run_charts import charts_of
from tests import make
from tests.circle.turning import QUICK, rank_everything, turn_here

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

SFT = {"algorithm": "sft", "epochs": 3, "rows_per_step": 6, "rows_per_forward": 6, "learning_rate": 1e-3, "probes": 2,
       "samples_per_probe": 4}  # fmt: skip
SET = [f"{name}={value}" for name, value in SFT.items() if name != "algorithm"]


@pytest.fixture
def written(project):
    """Ten replies of the training split and three of the validation split, written and accepted; one waits."""
    for number, split in enumerate(["train"] * 10 + ["validation"] * 3):
        write(project, f"{split} {number if split == 'train' else number - 10}", "Water it.", split)
    make.write(asked(project, "train 10"), "Less sun.")
    return project


def asked(project, text, split="train"):
    """The slot of somebody who is to answer one of the project's prompts."""
    prompt = project.prompts.get(messages=[{"role": "user", "content": text}])
    assert prompt.group.split == split
    item = demonstrations_wanted.ask_for_demonstrations(prompt=prompt)
    return make.slots.claim_slot(item.slots.filter(state="free")[0].pk, user=make.make_member(project, "alice"))


def write(project, text, content, split="train"):
    make.review(make.make_review_slot(make.write(asked(project, text, split), f"{content} {text}")))


def train(project, *more):
    out = StringIO()
    sets = [word for one in SET for word in ("--set", one)]
    call_command("train_sft", "--project", project.slug, *sets, *more, stdout=out)
    return out.getvalue()


def test_what_people_wrote_becomes_a_policy_that_can_serve(written, tmp_path, client):
    from rewardtrain.policy import load_policy
    from rewardtrain.run_files import folder_of

    said = train(written, "--json", str(tmp_path / "figures.json"))
    run = TrainingRun.objects.get()
    made, result = run.produced, run.result
    assert run.algorithm == "SFT" and run.state == "done" and made.parent == written.policy
    assert run.demonstrations.kind == Snapshot.Kind.DEMONSTRATIONS and run.snapshot is None
    assert (result["demonstrations"], result["held_out_before"]["tokens"]) == (10, result["held_out_after"]["tokens"])
    assert result["held_out_after"]["loss"] < result["held_out_before"]["loss"] - 0.2
    assert made.figures["held_out_after"] == result["held_out_after"]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["model"] == made.pk and figures["held_out_after"] == result["held_out_after"]
    assert "from 10 demonstrations" in said and "Held out: loss" in said and f"--made {made.pk}" in said
    assert f"promote --model {made.pk}" in said
    load_policy(folder_of(made))  # its files are those it was made with

    titles = {chart.title for chart in charts_of(run, all_of_them=True)}
    assert {"Loss", "Tokens foreseen", "Loss on held-out demonstrations", "Learning rate", "Reply length"} <= titles
    client.force_login(make.make_member(written, "maria", role="manager"))
    page = client.get(reverse("rewardtrain:run", args=[written.slug, run.pk])).content.decode()
    assert "SFT" in page and "Loss on held-out demonstrations" in page

    promotions.promote(project=written, to_version=made, reason="It says what we wrote.")
    written.refresh_from_db()
    assert written.policy == made


def test_too_few_demonstrations_are_told_of_with_where_to_get_them(project):
    for number in range(3):
        write(project, f"train {number}", "Water it.")
    make.write(asked(project, "train 5"))
    wanted = "at least 8 accepted demonstrations.*has 3 accepted, and 1 waiting for a review.*Open demonstrations"
    with pytest.raises(CommandError, match=wanted):
        train(project)
    rank_everything(project)
    with pytest.raises(TooFewDemonstrations, match=wanted):
        rounds.start_round(project=project, hyperparameters={"policy": {"algorithm": "sft"}})
    assert not TrainingRun.objects.exists() and not Round.objects.exists() and not Snapshot.objects.exists()


def test_what_cannot_work_is_refused_before_anything_is_made(written, tmp_path):
    for more, wanted in [
        (["--corpus", "missing.txt"], "no corpus 'missing.txt'"),
        (["--corpus-share", "1.5"], "Set corpus_share above 0 and below 1"),
        (["--set", "rows_per_forward=4"], "Make rows_per_step"),
        (["--policy", "99"], "has no policy 99"),
    ]:
        with pytest.raises(CommandError, match=wanted):
            train(written, *more)
    assert not TrainingRun.objects.exists() and not Snapshot.objects.exists()
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"txt": "?"}\n')
    with pytest.raises(CommandError, match="Line 2 of bad.jsonl has no text"):
        train(written, "--corpus", str(tmp_path / "bad.jsonl"))


def test_a_corpus_an_adapter_and_another_start_can_be_named(written, tmp_path):
    (tmp_path / "corpus.txt").write_text("Plants want light. " * 40)
    said = train(
        written, "--corpus", str(tmp_path / "corpus.txt"), "--corpus-share", "0.25", "--policy", str(written.policy_id),
        "--set", "lora.rank=2", "--set", "corpus_tokens=32",
    )  # fmt: skip
    run = TrainingRun.objects.get()
    assert "tokens of a corpus" in said and run.result["corpus"]["file"] == "corpus.txt"
    assert run.result["corpus_tokens"] == pytest.approx(0.25 * run.result["optimizer_tokens"], abs=2)
    folder = Path(written.policy.location)
    assert (tmp_path / "models" / run.produced.location / "adapter_config.json").is_file()

    train(written, "--base", str(tmp_path / "models" / folder))
    assert TrainingRun.objects.order_by("pk").last().produced.parent is None


def test_a_round_teaches_what_people_wrote_and_gates_it(written, client):
    rank_everything(written)
    maria = make.make_member(written, "maria", role="manager")
    client.force_login(maria)
    address = reverse("rewardtrain:teach", args=[written.slug])
    page = client.get(address).content.decode()
    assert "10 demonstrations" in page and "3 held-out ones" in page and "1 waits for a review" in page
    written.hyperparameters = {**QUICK, "policy": {**QUICK["policy"]}}
    written.save()
    assert client.post(address).status_code == 302
    turn = Round.objects.get()
    assert turn.algorithm == "SFT" and turn.started_by == maria and turn.demonstrations is not None
    assert AuditEntry.objects.filter(action="round.started", actor=maria).exists()

    turn = turn_here(turn)
    assert turn.state == Round.State.DECISION, turn.error
    run = turn.runs.get(kind=TrainingRun.Kind.POLICY)
    assert run.demonstrations == turn.demonstrations and run.result["demonstrations"] == 10
    lines = {line["key"]: line for line in turn.gate_report["lines"]}
    assert lines.keys() >= {"reward", "second_reward", "kl", "length"}
    assert lines["kl"]["wanted"] == "at most 200"  # what people wrote may be far from anything it said
    (kl,) = [chart for chart in charts_of(run) if chart.title.startswith("KL")]
    assert kl.bound == 200 or "of 200 nats" in kl.unit
    page = client.get(reverse("rewardtrain:round", args=[written.slug, turn.number])).content.decode()
    assert "SFT" in page and "promote or refuse?" in page
    promotions.promote(project=written, to_version=turn.policy_after, by=maria, reason="As written.")
    written.refresh_from_db()

    # PPO starts from it, and mixes what it learned from in again
    turn = rounds.start_round(project=written, hyperparameters={"policy": {"ptx_coef": 0.5, "ptx_rows": 3}})
    turn = turn_here(turn)
    assert turn.state == Round.State.DECISION, turn.error
    run = turn.runs.get(kind=TrainingRun.Kind.POLICY)
    assert run.parent == turn.policy_before == ModelVersion.objects.get(pk=written.policy_id)
    assert run.result["mixed_in"] == {"demonstrations": 10, "pieces": 0}
    assert run.metrics.filter(name="ppo/ptx_loss").count() == run.steps_total
    assert "Loss on what is mixed in" in {chart.title for chart in charts_of(run)}


def test_a_policy_trained_by_command_is_gated_by_a_round_that_trains_none(written, client):
    train(written)
    made = TrainingRun.objects.get().produced
    rank_everything(written)
    for wrong, said in ((99, "Model 99 is no policy of"), (written.policy_id, "is what serves here")):
        with pytest.raises(rounds.RoundRefused, match=said):
            rounds.start_round(project=written, hyperparameters={"policy": {"made": wrong}})
    out = StringIO()
    call_command("run_round", "--project", written.slug, "--made", str(made.pk), stdout=out)
    turn = Round.objects.get()
    assert turn.state == Round.State.DECISION and f"promote --model {made.pk}" in out.getvalue()
    assert (turn.policy_after, turn.algorithm, turn.demonstrations) == (made, "SFT", None)
    assert set(turn.runs.values_list("kind", flat=True)) == {"reward_model", "second_reward_model", "gate"}
    assert next(line for line in turn.gate_report["lines"] if line["key"] == "kl")["wanted"] == "at most 200"
    client.force_login(make.make_member(written, "maria", role="manager"))
    page = client.get(reverse("rewardtrain:round", args=[written.slug, turn.number])).content.decode()
    assert "trained before" in page and "promote or refuse?" in page
    assert client.get(reverse("rewardtrain:ledger", args=[written.slug, turn.number])).status_code == 200
    promotions.promote(project=written, to_version=made, reason="As we wrote.")
    turn.refresh_from_db()
    assert turn.state == Round.State.PROMOTED
    call_command("check_invariants", stdout=StringIO())


def test_a_round_cannot_begin_where_it_says_so(project, client):
    client.force_login(make.make_member(project, "maria", role="manager"))
    address = reverse("rewardtrain:teach", args=[project.slug])
    page = client.get(address).content.decode()
    assert (
        "at least 8 accepted demonstrations" in page
        and 'type="submit"' not in page.split("<main")[1].split("</main")[0]
    )
    assert client.post(address).status_code == 409
    assert not Round.objects.exists()


def test_ppo_by_command_mixes_in_a_corpus_alone(project, tmp_path):
    rank_everything(project)
    call_command("train_reward_model", "--project", project.slug, "--set", "epochs=1", stdout=StringIO())
    (tmp_path / "corpus.txt").write_text("Plants want light. " * 40)
    sets = {**QUICK["policy"], "ptx_coef": 2, "ptx_rows": 2, "corpus_tokens": 16, "corpus": tmp_path / "corpus.txt"}
    given = [word for name, value in sets.items() for word in ("--set", f"{name}={value}")]
    call_command("train_policy", "--project", project.slug, *given, stdout=StringIO())
    run = TrainingRun.objects.get(kind=TrainingRun.Kind.POLICY)
    assert run.result["mixed_in"]["demonstrations"] == 0 < run.result["mixed_in"]["pieces"]
    with pytest.raises(CommandError, match="at least 8 accepted demonstrations"):
        call_command("train_policy", "--project", project.slug, "--set", "ptx_coef=1", stdout=StringIO())


def test_ppo_by_command_takes_the_newest_rankings_and_what_was_written_apart(written):
    rank_everything(written)
    call_command("train_reward_model", "--project", written.slug, "--set", "epochs=1", stdout=StringIO())
    train(written)  # its snapshot is newer than that of the rankings
    given = [word for name, value in QUICK["policy"].items() for word in ("--set", f"{name}={value}")]
    call_command("train_policy", "--project", written.slug, *given, "--set", "ptx_coef=0.5", stdout=StringIO())
    run = TrainingRun.objects.order_by("pk").last()
    assert (run.snapshot.kind, run.demonstrations.kind) == ("preference", "demonstrations")
    assert run.result["mixed_in"] == {"demonstrations": 10, "pieces": 0}


def test_what_is_ready_is_what_a_snapshot_holds(written):
    found = ready(written)
    assert (found.learned, found.held_out, found.waiting, found.problem) == (10, 3, 1, "")


def test_a_run_that_failed_by_what_is_missing_is_not_tried_again(written):
    run = runs.queue_run(
        project=written, kind=TrainingRun.Kind.POLICY, parent=written.policy, hyperparameters={"algorithm": "sft"},
        ring=False,
    )  # fmt: skip
    from rewardtrain.errors import NothingToLearn

    with pytest.raises(NothingToLearn, match="snapshot of demonstrations"):
        runs.work_on_run(run.pk)
    run.refresh_from_db()
    assert run.state == "failed"
