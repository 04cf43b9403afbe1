"""Turn the circle once, from here."""

import time
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from feedback import snapshots
from feedback.errors import FeedbackError
from feedback.models import Project, QueuedWork
from rewardtrain import command_line, rounds
from rewardtrain.algorithms import SFT
from rewardtrain.models import Round, TrainingRun


class Command(BaseCommand):
    help = "Turn the circle once: snapshot, reward models, policy, gate. Works here, whether workers run or not."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--seed", type=int)
        parser.add_argument("--json", metavar="FILE")
        parser.add_argument(
            "--resume", action="store_true", help="go on with the last round, which failed or was stopped"
        )
        command_line.add_algorithm_argument(
            parser, SFT, default="the project's, which is PPO unless its settings say another"
        )
        parser.add_argument("--made", type=int, metavar="ID", help="train no policy: gate this one, trained before")
        command_line.add_settings_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        project = command_line.project_named(options["project"])
        try:
            turn = self._resumed(project) if options["resume"] else self._started(project, options)
        except command_line.REFUSALS as err:
            raise CommandError(getattr(err, "message", str(err))) from err
        self.stdout.write(f"Round {turn.number} of {project} {'goes on' if options['resume'] else 'has begun'}.")
        self._turn(turn)
        self._report(turn, options["json"])

    def _started(self, project: Project, options: dict[str, Any]) -> Round:
        chosen = command_line.read_settings(options["set"])
        if options["algorithm"]:
            chosen["policy"] = {**chosen.get("policy", {}), "algorithm": options["algorithm"]}
        if options["made"]:
            chosen["policy"] = {**chosen.get("policy", {}), "made": options["made"]}
        return rounds.start_round(
            project=project, trigger=Round.Trigger.COMMAND, seed=options["seed"], hyperparameters=chosen
        )

    def _resumed(self, project: Project) -> Round:
        turn = Round.objects.filter(project=project).order_by("-number").first()
        if turn is None:
            raise CommandError(f"{project} has had no round yet. Start one: leave out --resume.")
        rounds.resume_round(turn=turn, by=None)
        return turn

    def _turn(self, turn: Round) -> None:
        """Do each stage's work here; what a worker was quicker to take is waited for."""
        while turn.state in Round.ACTIVE:
            for snapshot in rounds.snapshots_of(turn):
                with suppress(FeedbackError):  # kept on its row, which the round reads
                    snapshots.write_now(snapshot)
            for run in TrainingRun.objects.filter(round=turn, state=QueuedWork.State.QUEUED).order_by("pk"):
                self._work(run)
            if not rounds.advance(turn):
                time.sleep(0.5)
            turn.refresh_from_db()

    def _work(self, run: TrainingRun) -> None:
        try:
            command_line.work_here(run, self.stdout)
        except CommandError as err:  # the round itself ends with the reason, below
            self.stderr.write(str(err))

    def _report(self, turn: Round, path: str | None) -> None:
        report = turn.gate_report
        command_line.write_json(
            path,
            {
                "round": turn.number,
                "state": turn.state,
                "policy": turn.policy_after_id,
                "error": turn.error,
                "without_rules": turn.without_rules,
                "gate": {key: report.get(key) for key in ("passed", "lines", "counts")},
            },
        )
        if turn.state == Round.State.FAILED:
            raise CommandError(f"Round {turn.number} failed. {turn.error}")
        if turn.without_rules:
            self.stdout.write(f"No rule model in this round. {turn.without_rules}")
        for line in report["lines"]:
            mark = "passed" if line["passed"] else "FAILED"
            self.stdout.write(f"{mark:7} {line['name']}: {line['found']} (wanted {line['wanted']})")
        if turn.state == Round.State.DECISION:
            self.stdout.write(f"Next: manage.py promote --model {turn.policy_after_id}, or decide on the rounds page.")
        else:
            self.stdout.write(f"{turn.policy_after} serves now.")
