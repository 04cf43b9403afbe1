"""Rehearse the whole circle with simulated annotators."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Mapping
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from feedback.models import ModelVersion, Project
from rewardtrain import command_line, repeats, rounds
from rewardtrain.algorithms import ALGORITHMS, PPO
from rewardtrain.hyperparameters import PpoSettings
from rewardtrain.models import Round, TrainingRun
from rewardtrain.rehearsal import comparing, measuring, probed
from rewardtrain.rehearsal.people import RehearsalFailed
from rewardtrain.rehearsal.site import Site
from rewardtrain.rehearsal.staging import Stage, Wanted
from rewardtrain.run_figures import terminal_lines
from rewardtrain.seeds import stable_seed
from rewardtrain.terminal import Line, bar

LONGEST_ROUND_SECONDS = 3600.0
ALL = "all"


class Command(BaseCommand):
    help = (
        "Let simulated annotators, who err in about one judgement of seven, work through the real pages in a project "
        "of their own; then turn the circle and say what changed. A dress rehearsal before you pay people."
    )
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--annotators", type=int, default=8)
        parser.add_argument("--comparisons", type=int, default=300, help="in every round")
        parser.add_argument("--rounds", type=int, default=1, help="they share one round's PPO updates, if none are set")
        parser.add_argument(
            "--probes", type=int, default=0, help="in every round; comparisons are then of everyday openings alone"
        )
        parser.add_argument(
            "--without-rules", action="store_true", help="with --probes: learn from preferences alone, for comparison"
        )
        parser.add_argument("--seed", type=int, default=0)
        command_line.add_algorithm_argument(parser, ALL)
        parser.add_argument("--seeds", type=int, default=1, help="with --algorithm all: how many seeds, from --seed on")
        parser.add_argument("--json", metavar="FILE")
        parser.add_argument("--samples", metavar="FILE", help="one JSON line per test prompt, replies before and after")
        command_line.add_settings_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        _check(options)
        call_command("migrate", interactive=False, verbosity=0)
        others = _others()
        chosen = command_line.read_settings(options["set"])
        if options["algorithm"] == ALL:
            self._compare(options, chosen)
            _nobody_was_touched(others)
            return
        if options["algorithm"]:
            chosen["policy"] = {**chosen.get("policy", {}), "algorithm": options["algorithm"]}
        chosen = sharing_updates(chosen, options["rounds"])
        if options["without_rules"]:
            chosen["rule_model"] = {**chosen.get("rule_model", {}), "use_rules": False}
        try:
            stage = Stage.build(
                annotators=options["annotators"],
                wanted=Wanted(options["comparisons"], options["probes"], options["rounds"]),
                seed=options["seed"],
                hyperparameters=chosen,
            )
        except RehearsalFailed as err:
            raise CommandError(str(err)) from err
        project = stage.project
        self.stdout.write(f"Rehearsing in {project.name} with {len(stage.people)} simulated annotators.")
        connections.close_all()
        started = project.policy
        assert started is not None
        try:
            with Site() as site:
                for number in range(options["rounds"]):
                    stage.collect(site.address, number, self.stdout)
                    self._turn(project, options["seed"], number)
                result, lines = self._measure(started, project, options["seed"])
        except RehearsalFailed as err:
            raise CommandError(str(err)) from err
        stage.dismiss()
        _nobody_was_touched(others)
        result["cpu_seconds"] = round(_cpu_seconds(), 1)
        command_line.write_json(options["json"], result)
        if options["samples"]:
            measuring.write_samples(options["samples"], lines)
        self._say(result)

    def _turn(self, project: Project, seed: int, number: int) -> Round:
        """Start a round and follow it; the workers do the work."""
        project.refresh_from_db()
        seed = stable_seed(seed, "round", number) % 2**31
        return self._follow(rounds.start_round(project=project, trigger=Round.Trigger.COMMAND, seed=seed))

    def _follow(self, turn: Round) -> Round:
        until = time.monotonic() + LONGEST_ROUND_SECONDS
        with bar(f"round {turn.number}, {turn.algorithm}", self.stdout, _lines(turn.project)) as progress:  # type: ignore[arg-type]
            while turn.state in Round.ACTIVE and time.monotonic() < until:
                time.sleep(0.5)
                turn.refresh_from_db()
                run = TrainingRun.objects.filter(round=turn, state="running").order_by("-pk").first()
                if run is not None and run.steps_total:
                    measuring.judge_steps(run)
                    newest = dict(run.metrics.filter(step=run.steps_done).values_list("name", "value"))
                    progress(run.steps_done, run.steps_total, newest)
        if turn.state in {*Round.ACTIVE, Round.State.FAILED}:
            raise RehearsalFailed(f"Round {turn.number} did not end: {turn.error or turn.get_state_display()}.")
        for run in TrainingRun.objects.filter(round=turn, kind=TrainingRun.Kind.POLICY):
            measuring.judge_steps(run)
        for line in turn.gate_report["lines"]:
            mark = "passed" if line["passed"] else "FAILED"
            self.stdout.write(f"  {mark:7} {line['name']}: {line['found']} (wanted {line['wanted']})")
        return turn

    def _compare(self, options: dict[str, Any], chosen: dict[str, Any]) -> None:
        """Every algorithm on each seed's rankings and reward models; what came out as a table.

        The JSON is written after each seed, so that what ends a later one costs nothing of those before.
        """
        given = {name: chosen.pop(name) for name in ALGORITHMS if name in chosen}
        results: list[dict[str, Any]] = []
        try:
            budgets = comparing.equal_budget(given)
            policies = comparing.policies_of(chosen.get("policy", {}), budgets)
            comparing.check(chosen, policies)
            with Site() as site:
                for seed in range(options["seed"], options["seed"] + options["seeds"]):
                    results.append(self._compare_on(site, {**options, "seed": seed}, chosen, policies))
                    command_line.write_json(options["json"], {"budgets": budgets, "seeds": results})
        except (RehearsalFailed, *command_line.REFUSALS) as err:
            raise CommandError(getattr(err, "message", str(err))) from err
        self.stdout.write("\n" + "\n".join(comparing.table(results)))

    def _compare_on(
        self, site: Site, options: dict[str, Any], chosen: dict[str, Any], policies: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        """One seed: its people rank once, and each algorithm's round starts from the same reward models."""
        seed = options["seed"]
        stage = Stage.build(
            annotators=options["annotators"],
            wanted=Wanted(options["comparisons"]),
            seed=seed,
            hyperparameters={**chosen, **policies[PPO]},
            promote_at_once=False,
        )
        project = stage.project
        self.stdout.write(f"Seed {seed}: rehearsing in {project.name} with {len(stage.people)} simulated annotators.")
        start = project.policy
        assert start is not None
        connections.close_all()
        stage.collect(site.address, 0, self.stdout)
        stage.dismiss()
        first = self._turn(project, seed, 0)
        turns = {PPO: first}
        for name in ALGORITHMS:
            if name != PPO:
                again = repeats.repeat_round(turn=first, hyperparameters=policies[name])
                turns[name] = self._follow(again)
        found = {name: _figures(start, turn, project, seed) for name, turn in turns.items()}
        reward_model = TrainingRun.objects.get(round=first, kind=TrainingRun.Kind.REWARD_MODEL).produced
        assert reward_model is not None
        return {
            "seed": seed,
            "project": project.slug,
            "start": found[PPO].pop("before"),
            "reward_model": measuring.judge_reward_model(reward_model, start, project, seed),
            "algorithms": {name: {key: one[key] for key in one if key != "before"} for name, one in found.items()},
        }

    def _measure(self, started: ModelVersion, project: Project, seed: int) -> tuple[dict[str, Any], list[str]]:
        last = Round.objects.filter(project=project).order_by("-number").first()
        assert last is not None and last.policy_after is not None
        project.refresh_from_db()
        after = last.policy_after if project.policy_id == started.pk else project.policy
        assert after is not None
        found, lines = measuring.compare(started, after, project, seed)
        reward_model = TrainingRun.objects.get(round=last, kind=TrainingRun.Kind.REWARD_MODEL).produced
        assert reward_model is not None
        judged = measuring.judge_reward_model(reward_model, last.policy_before, project, seed)
        serving = {
            "serving_changed": project.policy_id == last.policy_after_id,
            "gate_passed": last.gate_report["passed"],
        }
        if project.probes_open:
            _take_in(found, probed.measure_probed(last, started, after, seed))
        return {"seed": seed, **found, "reward_model": judged, **serving}, lines

    def _say(self, result: dict[str, Any]) -> None:
        before, after = result["before"], result["after"]
        rows: tuple[tuple[str, str], ...] = (
            ("breaks a rule", "violation_rate"), ("fluent", "fluent_rate"), ("distinct", "distinct_rate"),
        )  # fmt: skip
        self.stdout.write(f"\nOn {result['prompts']} test prompts      before   after")
        if "violation_rate_probed" in before:
            rows += (("breaks the probed rule", "violation_rate_probed"),)
        for name, key in rows:
            self.stdout.write(f"  {name:24} {before[key]:6.1%}  {after[key]:6.1%}")
        self.stdout.write(f"  {'tokens':24} {before['mean_tokens']:6.1f}  {after['mean_tokens']:6.1f}")
        won, model = result["preference_win_rate"], result["reward_model"]
        self.stdout.write(f"The new policy's reply is preferred in {won:.1%}; {result['tie_rate']:.1%} are ties.")
        self.stdout.write(
            f"Reward model: {model['pair_accuracy']:.1%} of judged pairs; {model['ceiling']:.1%} were right. "
            f"KL {result['kl_nats']:.2f} nats. {result['cpu_seconds']:.0f} s of CPU."
        )


def _check(options: dict[str, Any]) -> None:
    for name in ("annotators", "comparisons", "rounds", "seeds"):
        if options[name] < 1:
            raise CommandError(f"--{name} needs at least 1.")
    compares = options["algorithm"] == ALL
    if compares and (options["rounds"] > 1 or options["samples"]):
        raise CommandError("--algorithm all compares one round of each, and writes no samples: leave out that option.")
    if options["probes"] < 0:
        raise CommandError("--probes needs at least 0.")
    if options["without_rules"] and not options["probes"]:
        raise CommandError("--without-rules belongs to --probes: without probes there are no rules to leave out.")
    if options["probes"] and compares:
        raise CommandError("--algorithm all compares what rankings alone teach: leave out --probes.")
    if options["seeds"] > 1 and not compares:
        raise CommandError("--seeds belongs to --algorithm all. Rehearse one algorithm seed by seed: --seed.")


def sharing_updates(chosen: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """A round's settings where several rounds of PPO shall cost what one does, unless its updates were set.

    >>> sharing_updates({"gate": {}}, 2)
    {'gate': {}, 'policy': {'updates': 16}}
    """
    policy = chosen.get("policy", {})
    if rounds == 1 or policy.get("algorithm", PPO) != PPO:
        return dict(chosen)
    return {**chosen, "policy": {"updates": math.ceil(PpoSettings().updates / rounds), **policy}}


def _figures(start: ModelVersion, turn: Round, project: Project, seed: int) -> dict[str, Any]:
    """What one algorithm's policy does on test prompts, and what it cost."""
    assert turn.policy_after is not None
    found, _ = measuring.compare(start, turn.policy_after, project, seed)
    result = TrainingRun.objects.get(round=turn, kind=TrainingRun.Kind.POLICY).result
    costs = {name: result[name] for name in ("samples", "optimizer_tokens", "cpu_seconds")}
    return {**found, **costs, "gate": "passed" if turn.gate_report["passed"] else "failed"}


def _take_in(found: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add figures to those that are there, part by part."""
    for name, value in more.items():
        found[name] = {**found[name], **value} if isinstance(found.get(name), dict) else value


def _nobody_was_touched(others: dict[int, int | None]) -> None:
    if _others() != others:
        raise CommandError("Another project's policy changed during the rehearsal. That must not be; report it.")


def _lines(project: Project) -> dict[str, Line]:
    """What the terminal shows of a round's runs, PPO beside that of the round before."""
    policy = TrainingRun.Kind.POLICY
    before = TrainingRun.objects.filter(project=project, kind=policy, state="done").order_by("-pk").first()
    return terminal_lines(TrainingRun.Kind.REWARD_MODEL, None) | terminal_lines(policy, before)


def _others() -> dict[int, int | None]:
    """Which policy serves every project that is no rehearsal."""
    return dict(Project.objects.filter(is_rehearsal=False).values_list("pk", "policy_id"))


def _cpu_seconds() -> float:
    """User and system time of this process and of every one it started and has seen end."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
