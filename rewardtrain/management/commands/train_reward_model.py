"""Learn a preference reward model from what was ranked."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from feedback.models import Project
from rewardtrain import command_line, runs
from rewardtrain.models import TrainingRun


class Command(BaseCommand):
    help = "Train a preference reward model on a project's rankings and measure it on held-out openings."

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
            run = command_line.run_to_resume(options["resume"], project, TrainingRun.Kind.REWARD_MODEL)
        else:
            run = self._new_run(project, options)
        run = command_line.work_or_cancel(run, self.stdout)
        self._report(run, options["json"])

    def _new_run(self, project: Project, options: dict[str, Any]) -> TrainingRun:
        chosen = command_line.read_settings(options["set"]) | ({"base": options["base"]} if options["base"] else {})
        snapshot = command_line.take_snapshot(project)
        return runs.queue_run(
            project=project,
            kind=TrainingRun.Kind.REWARD_MODEL,
            snapshot=snapshot,
            parent=project.policy,
            hyperparameters=chosen,
            seed=options["seed"],
            ring=False,
        )

    def _report(self, run: TrainingRun, path: str | None) -> None:
        assert run.produced is not None
        result = run.result
        figures = {
            "model": run.produced.pk,
            "run": run.pk,
            "pairs": result.get("pairs", 0),
            "pair_accuracy": result.get("pair_accuracy"),
            "interval": result.get("interval"),
        }
        command_line.write_json(path, figures | {"details": result})
        self.stdout.write(f"{run.produced} (model {run.produced.pk}) from {result['comparisons']} comparisons.")
        if figures["pairs"]:
            low, high = figures["interval"]
            self.stdout.write(
                f"Held out: {figures['pair_accuracy']:.1%} of {figures['pairs']} pairs ({low:.1%} to {high:.1%}); "
                f"the longer reply wins in {result['length_baseline']:.1%}."
            )
        else:
            self.stdout.write("Nothing was held out, so its accuracy is not known: add prompts to the other splits.")
        self.stdout.write(f"Next: manage.py train_policy --project {run.project.slug}")
