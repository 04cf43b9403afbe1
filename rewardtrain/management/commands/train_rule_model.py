"""Learn which rules dialogues break from what people judged."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from feedback.models import Project
from rewardtrain import command_line, runs
from rewardtrain.models import TrainingRun


class Command(BaseCommand):
    help = "Train a rule model on a project's verdicts about rules and measure it on held-out openings."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument(
            "--base",
            default="",
            metavar="PATH",
            help="a Hugging Face folder to start from; default: the serving policy",
        )
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
        command_line.add_settings_argument(parser)
        command_line.add_resume_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        project = command_line.project_named(options["project"])
        if options["resume"]:
            run = command_line.run_to_resume(options["resume"], project, TrainingRun.Kind.RULE_MODEL)
        else:
            run = self._new_run(project, options)
        run = command_line.work_or_cancel(run, self.stdout)
        self._report(run, options["json"])

    def _new_run(self, project: Project, options: dict[str, Any]) -> TrainingRun:
        chosen = command_line.read_settings(options["set"]) | ({"base": options["base"]} if options["base"] else {})
        return runs.queue_run(
            project=project,
            kind=TrainingRun.Kind.RULE_MODEL,
            parent=project.policy,
            hyperparameters=chosen,
            seed=options["seed"],
            ring=False,
        )

    def _report(self, run: TrainingRun, path: str | None) -> None:
        assert run.produced is not None
        result = run.result
        names = ("measured_on", "mean_auc_own", "mean_auc_all", "brier", "temperature")
        figures = {"model": run.produced.pk, "run": run.pk} | {name: result.get(name) for name in names}
        command_line.write_json(path, figures | {"details": result})
        self.stdout.write(
            f"{run.produced} (model {run.produced.pk}) from {result['verdicts']} verdicts on "
            f"{result['dialogues']} dialogues."
        )
        if result["measured_on"] is None:
            self.stdout.write("Nothing was held out, so its worth is not known: judge dialogues of the other splits.")
            return
        self.stdout.write(
            f"{result['held_out_dialogues']} dialogues of the {result['measured_on']} split: "
            f"mean AUC over rules {_said(result['mean_auc_own'])} where probed, {_said(result['mean_auc_all'])} "
            f"in all; Brier score {result['brier']:.3f}."
        )
        if few := [one["key"] for one in result["rules"] if one["all"] is None]:
            self.stdout.write(f"Too few verdicts to measure: {', '.join(few)}.")
        if result["temperature"] is None:
            self.stdout.write("Too few verdicts of the validation split to calibrate it on.")


def _said(auc: float | None) -> str:
    return "unknown" if auc is None else f"{auc:.3f}"
